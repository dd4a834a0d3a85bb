"""Celery shells: ids in, nothing out, safe to run twice. The work goes on in threads of its own (`dispatch.py`)."""

from celery import shared_task

from deployments import retention
from deployments.live import redis
from deployments.mirror import follow_logs, refresh
from deployments.operations import dispatch


@shared_task(name="deployments.send_operation")
def send_operation(operation_id: str) -> None:
    dispatch.start(operation_id)


@shared_task(name="deployments.poll_operations")
def poll_operations() -> None:
    dispatch.tick()
    follow_logs.follow_logs()


@shared_task(name="deployments.sweep_operations")
def sweep_operations() -> None:
    dispatch.sweep()


@shared_task(name="deployments.refresh_mirrors")
def refresh_mirrors() -> None:
    refresh.refresh_due()


@shared_task(name="deployments.answer")
def answer(key: str) -> None:
    """Show whoever sent it that this queue is worked on."""
    redis.execute(lambda link: link.set(key, 1, ex=60), fallback=None)


@shared_task(name="deployments.prune")
def prune() -> None:
    retention.prune()
