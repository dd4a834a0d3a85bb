"""Cancellation of queued operations whose requesters have lost the permission.

It runs when a role is removed in the site, and every few seconds in a worker, because roles can also change by
command, at the identity provider, and in the database.
"""

from django.contrib.auth import get_user_model
from django.contrib.auth.models import User

from dashboard.access import guards, service_rules
from dashboard.access.permissions import Permission
from dashboard.audit.record import record_entry
from deployments.live.transitions import transition
from deployments.models import Operation
from deployments.models.operation import State


def cancel_unauthorized_operations() -> int:
    """Cancel queued operations whose requester may no longer perform them. Return the number of canceled operations.

    Only operations that were never sent are canceled, because the effect of others is unknown. Operations without a
    user as requester were started by a management command, which needs no permission.
    """
    waiting = list(Operation.objects.filter(state=State.QUEUED, attempts=0))
    names = {operation.requested_by for operation in waiting}
    users = {user.get_username(): user for user in get_user_model().objects.filter(username__in=names)}
    return sum(_cancel_if_unauthorized(operation, users.get(operation.requested_by)) for operation in waiting)


def _cancel_if_unauthorized(operation: Operation, user: User | None) -> bool:
    if user is None:
        return False
    level, permission = guards.access_level(user, operation.account_id), Permission(operation.kind)
    if not service_rules.denial_reason(level, user.get_username(), permission, operation.service):
        return False
    reason = f"{user} no longer has permission for this, so it wasn’t sent."
    was_canceled = transition(
        operation, State.CANCELED, expected={State.QUEUED}, error_code="NoLongerAllowed", error_message=reason
    )
    if was_canceled:
        record_entry(
            "withdraw_operation",
            account_id=operation.account_id,
            account_name=operation.account.name,
            target=f"{operation} ({operation.pk})",
            after={"requested_by": operation.requested_by, "reason": reason},
            via="system",
        )
    return was_canceled
