"""Corrections after a restore: the backup's record of calls to servers may be outdated."""

from datetime import datetime

from django.db.models import Value
from django.db.models.functions import Coalesce, Greatest
from django.utils import timezone

from deployments.models import Operation
from deployments.models.operation import UNSENT, State


def mark_queued_uncertain(made_at: datetime) -> int:
    """Mark operations that were unsent at the time of the backup as uncertain, and return their number.

    made_at: when the backup was made. The original site may have sent them afterwards, so their outcome is checked
        before anything is sent. Call this only while no worker is running.
    """
    now = timezone.now()
    reason = (
        f"The data of {made_at:%Y-%m-%d %H:%M} UTC was restored. This was queued then. The dashboard is "
        "checking whether it was sent later."
    )
    # With `sent_at` set, the mirror doesn't record their results as created outside the dashboard; with an attempt
    # counted, a 409 isn't treated as a refusal.
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
