"""After the data of a backup was put in place: what it says of calls to servers may be long out of date."""

from datetime import datetime

from django.db.models import Value
from django.db.models.functions import Coalesce, Greatest
from django.utils import timezone

from deployments.models import Operation
from deployments.models.operation import State

UNSENT = (State.QUEUED, State.SENDING)


def mark_queued_uncertain(made_at: datetime) -> int:
    """What waited to be sent when the backup was made may have been sent since, by a site that went on: it is looked
    into before anything is sent. Returns how many operations that concerns. For a site that does not run."""
    now = timezone.now()
    reason = (
        f"The data of {made_at:%Y-%m-%d %H:%M} UTC was restored. This was queued then. The dashboard is "
        "checking whether it was sent later."
    )
    # With a time of sending the mirror takes nothing that this may have made for something from outside; and with an
    # attempt behind it, a conflict does not pass for a refusal.
    return Operation.objects.filter(state__in=UNSENT).update(
        state=State.UNCERTAIN,
        state_since=now,
        sent_at=Coalesce("sent_at", Value(now)),
        attempts=Greatest("attempts", Value(1)),
        claimed_until=None,
        next_poll_at=now,
        error_code="",
        error_message=reason,
    )
