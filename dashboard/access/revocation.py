"""What waits in the queue for somebody who may no longer ask for it is canceled, before it is sent.

Called when a right is taken in the site, and every few seconds by a worker: rights also go by command, at the identity
provider, or in the database.
"""

from typing import Any

from django.contrib.auth import get_user_model

from dashboard.access import guards as access
from dashboard.access import service_rules
from dashboard.access.permissions import Permission
from dashboard.audit import record as audit
from deployments.live.transitions import change
from deployments.models import Operation
from deployments.models.operation import State


def withdraw() -> int:
    """Cancel what was queued by people who may not do that (any more); returns how many.

    Only what was never sent: of anything else it is not known what it has done. A name that is nobody's is a
    command's, and whoever types those may do everything.
    """
    waiting = list(Operation.objects.filter(state=State.QUEUED, attempts=0))
    names = {operation.requested_by for operation in waiting}
    people = {user.get_username(): user for user in get_user_model().objects.filter(username__in=names)}
    return sum(_withdraw(operation, people.get(operation.requested_by)) for operation in waiting)


def _withdraw(operation: Operation, person: Any) -> bool:
    if person is None:
        return False
    rank, permission = access.rank(person, operation.account_id), Permission(operation.kind)
    if not service_rules.refusal(rank, person.get_username(), permission, operation.service):
        return False
    reason = f"{person} no longer has permission for this, so it wasn’t sent."
    done = change(
        operation, State.CANCELED, expected={State.QUEUED}, error_code="NoLongerAllowed", error_message=reason
    )
    if done:
        audit.record(
            "withdraw_operation",
            account_id=operation.account_id,
            account_name=operation.account.name,
            target=f"{operation} ({operation.pk})",
            after={"requested_by": operation.requested_by, "reason": reason},
            via="system",
        )
    return done
