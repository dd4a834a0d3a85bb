"""Celery shells of the site's own: safe to run twice."""

from celery import shared_task

from dashboard import audit, withdrawal
from dashboard.api import once


@shared_task(name="dashboard.withdraw")
def withdraw() -> None:
    withdrawal.withdraw()


@shared_task(name="dashboard.prune_audit")
def prune_audit() -> None:
    audit.prune()
    once.prune()
