"""The table of permissions: every action, and the weakest role that may perform it.

It applies to pages, the JSON API, disabled actions and the page "Your permissions". It is documented in
docs/reference/permissions.md.
"""

from django.db.models import TextChoices

from dashboard.access import group_roles
from dashboard.access.models import Role

ACCESS_LEVELS = {Role(name): level for name, level in group_roles.ROLE_LEVELS.items()}
ADMIN_LEVEL = 4  # access level of a site administrator, in every account
ADMINISTRATOR = "Administrator"


class Permission(TextChoices):
    """A permission, named after the page where it is used. The label completes the sentence "You can ..."."""

    SEE = "see", "view models, assets, manifests, images, services, operations and logs"
    REFRESH = "refresh", "sync with the server now"
    REGISTER_MODEL = "register_model", "upload and register models"
    ADD_ASSET = "add_asset", "upload and add assets"
    CREATE_MANIFEST = "create_manifest", "create manifests"
    CREATE_IMAGE = "create_image", "build images"
    CREATE_SERVICE = "create_service", "deploy services, outside production"
    UPDATE_SERVICE = "update_service", "update services, outside production"
    DELETE_SERVICE = "delete_service", "delete their own services, outside production"
    USE_SERVICE = "use_service", "send test requests and view scoring keys"
    MANAGE_OPERATIONS = "steer_operation", "retry, cancel, resume and resolve operations"
    ACT_IN_PRODUCTION = "act_in_production", "deploy, update and delete in production"
    DELETE_ANY_SERVICE = "delete_any_service", "delete services created by others"
    CHANGE_SERVER = "change_server", "change the server's address and credentials, test the connection, and end a pause"
    CHANGE_REGISTRY = "change_registry", "add, change and delete registries"
    CHANGE_CLUSTER = "change_cluster", "add, change and delete clusters"
    CHANGE_MEMBERS = "change_members", "manage members and their roles"
    SEE_AUDIT = "see_audit", "view the audit log"
    SEE_STATUS = "see_status", "view the system status"
    CHANGE_ACCOUNTS = "change_accounts", "add and delete hosting accounts"
    CHANGE_PEOPLE = "change_people", "add, change and deactivate people"


_VIEWER = {Permission.SEE, Permission.REFRESH}
_SCIENTIST = {
    Permission.REGISTER_MODEL,
    Permission.ADD_ASSET,
    Permission.CREATE_MANIFEST,
    Permission.CREATE_IMAGE,
    Permission.CREATE_SERVICE,
    Permission.UPDATE_SERVICE,
    Permission.DELETE_SERVICE,
    Permission.USE_SERVICE,
    Permission.MANAGE_OPERATIONS,
}
_OPERATOR = {
    Permission.ACT_IN_PRODUCTION,
    Permission.DELETE_ANY_SERVICE,
    Permission.CHANGE_SERVER,
    Permission.CHANGE_REGISTRY,
    Permission.CHANGE_CLUSTER,
    Permission.CHANGE_MEMBERS,
    Permission.SEE_AUDIT,
    Permission.SEE_STATUS,
}


def required_level(permission: Permission) -> int:
    """Return the minimum access level for `permission`. Unlisted permissions require an administrator."""
    if permission in _VIEWER:
        return ACCESS_LEVELS[Role.VIEWER]
    if permission in _SCIENTIST:
        return ACCESS_LEVELS[Role.SCIENTIST]
    return ACCESS_LEVELS[Role.OPERATOR] if permission in _OPERATOR else ADMIN_LEVEL


def role_label(level: int) -> str:
    """Return the name of the role with this access level, or "" for 0."""
    if level == ADMIN_LEVEL:
        return ADMINISTRATOR
    return next((role.label for role, role_level in ACCESS_LEVELS.items() if role_level == level), "")


def required_role(permission: Permission) -> str:
    """Return the name of the weakest role with `permission`, such as `Data scientist`."""
    return role_label(required_level(permission))


def missing_role_message(permission: Permission) -> str:
    """Return the beginning of a denial: `This requires the “Data scientist” role`."""
    return f"This requires the “{required_role(permission)}” role"


class PermissionSet:
    """Permissions of an access level, for templates: `{% if may.create_image %}`.

    Unknown permission names raise ValueError. A test checks every name used in templates.
    """

    def __init__(self, access_level: int) -> None:
        self._access_level = access_level

    def __getitem__(self, name: str) -> bool:
        return self._access_level >= required_level(Permission(name))
