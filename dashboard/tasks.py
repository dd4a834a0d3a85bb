"""Celery shells of the site's own: safe to run twice."""

from celery import shared_task

from dashboard.access import revocation
from dashboard.api import idempotency
from dashboard.audit import record as audit


@shared_task(name="dashboard.withdraw")
def withdraw() -> None:
    revocation.withdraw()


@shared_task(name="dashboard.prune_audit")
def prune_audit() -> None:
    audit.prune()
    idempotency.prune()
