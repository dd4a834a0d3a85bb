"""Celery tasks of the bundled MMS. Arguments are IDs, nothing is returned, and running one twice is safe."""

from typing import Any

from celery import shared_task, signals

from mms import services
from mms.operations import retention, run


@shared_task(name="mms.run_operation")
def run_operation(operation_id: str) -> None:
    """Run one operation, unless another worker has its lease."""
    run.run(operation_id)


@shared_task(name="mms.sweep_operations")
def sweep_operations() -> None:
    """Queue open operations that no worker is running."""
    run.sweep()


@shared_task(name="mms.watch_services")
def watch_services() -> None:
    """Reconcile running services with the database."""
    services.watch()


@shared_task(name="mms.answer", bind=True)
def answer(self: Any, key: str) -> None:
    """Confirm that this queue has a worker by setting `key` in the broker, which the sender polls."""
    with self.app.connection_for_write() as connection:
        connection.default_channel.client.set(key, 1, ex=60)


@shared_task(name="mms.prune")
def prune() -> None:
    """Delete rows and files whose retention period has ended, at most once an hour."""
    retention.prune()


@signals.worker_ready.connect
def resume_operations(**_: Any) -> None:
    """Queue operations that the previous worker left unfinished, as soon as a worker starts."""
    sweep_operations.delay()


@signals.worker_ready.connect
def guard_services(**_: Any) -> None:
    """Stop services that exceed their limits, for as long as the worker runs."""
    services.process_engine().guard.start()
