"""What may be done to a service, and by whom: in production by operators alone, and deleted by who made it.

A service runs in production where its cluster says so. Where it was made outside the dashboard and its cluster is not
known, it counts as production as soon as the account has a production cluster: better asked once too often.
"""

from dashboard.access.permissions import Permission, needed, role_for, role_missing
from deployments.models import Cluster, Operation, Service


def in_production(service: Service) -> bool:
    """Whether the service runs where only operators deploy. Asks the database where its cluster is not known."""
    if service.cluster:
        return service.cluster.production
    return Cluster.objects.filter(account_id=service.account_id, production=True).exists()


def may_act(rank: int) -> bool:
    """Whether somebody of that rank may act in production."""
    return rank >= needed(Permission.ACT_IN_PRODUCTION)


def refusal(rank: int, name: str, permission: Permission, service: Service | None) -> str:
    """Why the person called `name`, of that rank, may not do it (to the service, if it is about one); "" where they
    may."""
    if rank < needed(permission):
        return f"{role_missing(permission)}."
    if service is None:
        return ""
    if not may_act(rank) and in_production(service):
        return (
            f"“{service.name}” runs in production. Changing it requires the "
            f"“{role_for(Permission.ACT_IN_PRODUCTION)}” role."
        )
    weak = rank < needed(Permission.DELETE_ANY_SERVICE)
    if permission == Permission.DELETE_SERVICE and weak and service.created_by != name:
        return (
            f"“{service.name}” was created by someone else. Deleting it requires the "
            f"“{role_for(Permission.DELETE_ANY_SERVICE)}” role."
        )
    return ""


def operation_refusal(rank: int, name: str, operation: Operation) -> str:
    """Why that person may not steer the operation (retry it, cancel it, decide about it); "" where they may."""
    steering = refusal(rank, name, Permission.STEER_OPERATION, None)
    return steering or refusal(rank, name, Permission(operation.kind), operation.service)
