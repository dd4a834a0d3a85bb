"""Celery shells of the bundled MMS: ids in, nothing out, safe to run twice."""

from typing import Any

from celery import shared_task, signals

from mms import services
from mms.operations import retention, run


@shared_task(name="mms.run_operation")
def run_operation(operation_id: str) -> None:
    run.run(operation_id)


@shared_task(name="mms.sweep_operations")
def sweep_operations() -> None:
    run.sweep()


@shared_task(name="mms.watch_services")
def watch_services() -> None:
    services.watch()


@shared_task(name="mms.answer", bind=True)
def answer(self: Any, key: str) -> None:
    """Show whoever sent it that this queue is worked on: by a word in the broker, the only place both sides know."""
    with self.app.connection_for_write() as connection:
        connection.default_channel.client.set(key, 1, ex=60)


@shared_task(name="mms.prune")
def prune() -> None:
    retention.prune()


@signals.worker_ready.connect
def adopt(**_: Any) -> None:
    """A worker that starts looks at once for what the one before it left behind."""
    sweep_operations.delay()
