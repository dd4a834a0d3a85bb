"""Rules for changing a service: only operators may act in production or delete services created by others.

A service runs in production if its cluster is a production cluster. If it was created outside the dashboard and its
cluster is unknown, it counts as production as soon as the account has a production cluster.
"""

from dashboard.access.permissions import Permission, missing_role_message, required_level, required_role
from deployments.models import Cluster, Operation, Service


def is_in_production(service: Service) -> bool:
    """Return True if only operators may deploy the service. Queries the database if its cluster is unknown."""
    if service.cluster:
        return service.cluster.production
    return Cluster.objects.filter(account_id=service.account_id, production=True).exists()


def can_act_in_production(access_level: int) -> bool:
    """Return True if this access level allows acting in production."""
    return access_level >= required_level(Permission.ACT_IN_PRODUCTION)


def denial_reason(access_level: int, username: str, permission: Permission, service: Service | None) -> str:
    """Return why the user may not do this (to the service, if there is one), or "" if they may."""
    if access_level < required_level(permission):
        return f"{missing_role_message(permission)}."
    if service is None:
        return ""
    if not can_act_in_production(access_level) and is_in_production(service):
        return (
            f"“{service.name}” runs in production. Changing it requires the "
            f"“{required_role(Permission.ACT_IN_PRODUCTION)}” role."
        )
    can_delete_any = access_level >= required_level(Permission.DELETE_ANY_SERVICE)
    if permission == Permission.DELETE_SERVICE and not can_delete_any and service.created_by != username:
        return (
            f"“{service.name}” was created by someone else. Deleting it requires the "
            f"“{required_role(Permission.DELETE_ANY_SERVICE)}” role."
        )
    return ""


def operation_denial_reason(access_level: int, username: str, operation: Operation) -> str:
    """Return why the user may not retry, cancel, resume or resolve the operation, or "" if they may."""
    reason = denial_reason(access_level, username, Permission.MANAGE_OPERATIONS, None)
    return reason or denial_reason(access_level, username, Permission(operation.kind), operation.service)
