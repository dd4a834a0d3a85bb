"""Celery tasks. Arguments are ids; running a task twice is safe. `dispatch` does the work in threads."""

from celery import shared_task

from deployments import retention
from deployments.live import redis
from deployments.mirror import follow_logs, refresh
from deployments.operations import dispatch


@shared_task(name="deployments.send_operation")
def send_operation(operation_id: str) -> None:
    """Run the next step of one operation without waiting for the next tick."""
    dispatch.start(operation_id)


@shared_task(name="deployments.poll_operations")
def poll_operations() -> None:
    """Start all due work. Scheduled every second."""
    dispatch.tick()
    follow_logs.follow_logs()


@shared_task(name="deployments.sweep_operations")
def sweep_operations() -> None:
    """Mark operations of lost workers as uncertain, and fail those that stayed unsent too long."""
    dispatch.sweep()


@shared_task(name="deployments.refresh_mirrors")
def refresh_mirrors() -> None:
    """Read the lists of every account that are due."""
    refresh.refresh_due()


@shared_task(name="deployments.answer")
def answer(key: str) -> None:
    """Set `key` in Redis for a minute, as proof that a worker consumes this queue."""
    redis.execute(lambda link: link.set(key, 1, ex=60), fallback=None)


@shared_task(name="deployments.prune")
def prune() -> None:
    """Delete expired rows, at most once an hour."""
    retention.prune()
