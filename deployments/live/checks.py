"""Outcome of each check of an operation: a response about it, or the reason why there was none.

Only a response makes its badge current, not a failed attempt.
"""

from datetime import datetime

from django.utils import timezone

from deployments.live import events
from deployments.live.badges import badge_of
from deployments.live.transitions import conditional_update
from deployments.models import Operation


def record_answer(operation: Operation, at: datetime) -> None:
    """Record that the server responded about the operation. at: time of the request."""
    was_stale = badge_of(operation).stale_since is not None
    had_error = bool(operation.check_error)
    same = Operation.objects.filter(pk=operation.pk, state=operation.state)
    recorded = conditional_update(operation, same, checked_at=at, check_error="", check_failed_at=None)
    if recorded and (was_stale or had_error):
        events.publish_operation(operation)


def record_no_answer(operation: Operation, reason: str) -> None:
    """Record why a check of the operation failed. The time of the last response is preserved."""
    if operation.check_error == reason:
        return
    same = Operation.objects.filter(pk=operation.pk, state=operation.state)
    failed_at = operation.check_failed_at or timezone.now()
    if conditional_update(operation, same, check_error=reason, check_failed_at=failed_at):
        events.publish_operation(operation)
