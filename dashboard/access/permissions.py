"""What can be done here, and the weakest role that may do it: the one table of permissions.

Pages, the JSON API, disabled actions and the page "Your permissions" use it; docs/reference/permissions.md lists it.
"""

from typing import Any

from django.db.models import TextChoices

from dashboard.access import group_roles
from dashboard.models import Role

RANK = {Role(name): rank for name, rank in group_roles.ROLES.items()}
ADMIN = 4  # the rank of a site administrator, in every account
ADMINISTRATOR = "Administrator"


class Permission(TextChoices):
    """One thing that somebody may do, called as the page where it is done; the label finishes “may …”."""

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
    STEER_OPERATION = "steer_operation", "retry, cancel, resume and resolve operations"
    ACT_IN_PRODUCTION = "act_in_production", "deploy, update and delete in production"
    DELETE_ANY_SERVICE = "delete_any_service", "delete services created by others"
    CHANGE_SERVER = "change_server", "change the server's address and credentials, and test the connection"
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
    Permission.STEER_OPERATION,
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


def needed(permission: Permission) -> int:
    """The rank that `permission` takes; what nobody decided about is for administrators."""
    if permission in _VIEWER:
        return RANK[Role.VIEWER]
    if permission in _SCIENTIST:
        return RANK[Role.SCIENTIST]
    return RANK[Role.OPERATOR] if permission in _OPERATOR else ADMIN


def name_of_rank(rank: int) -> str:
    """What a person of that rank is called on pages; "" for 0."""
    if rank == ADMIN:
        return ADMINISTRATOR
    return next((role.label for role, needed in RANK.items() if needed == rank), "")


def role_for(permission: Permission) -> str:
    """The weakest role that may do it, as pages call it: `Data scientist`."""
    return name_of_rank(needed(permission))


def role_missing(permission: Permission) -> str:
    """The beginning of a refusal: `This requires the “Data scientist” role`."""
    return f"This requires the “{role_for(permission)}” role"


class May:
    """For templates: `{% if may.create_image %}`. What is no permission is no there: a test reads what they ask for."""

    def __init__(self, rank: int) -> None:
        self._rank = rank

    def __getitem__(self, name: Any) -> bool:
        return self._rank >= needed(Permission(name))
