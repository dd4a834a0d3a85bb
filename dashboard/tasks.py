"""Celery tasks of the dashboard. Each is safe to run twice."""

from celery import shared_task

from dashboard.access import form_keys, revocation
from dashboard.api import idempotency
from dashboard.audit.record import prune_entries


@shared_task(name="dashboard.withdraw")
def cancel_unauthorized_operations() -> None:
    """Cancel queued operations whose requesters have lost the permission."""
    revocation.cancel_unauthorized_operations()


@shared_task(name="dashboard.prune_audit")
def prune_audit() -> None:
    """Delete old audit entries, idempotency keys and submissions of forms."""
    prune_entries()
    idempotency.prune()
    form_keys.prune()
