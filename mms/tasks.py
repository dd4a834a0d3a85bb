"""Celery shells of the bundled MMS: ids in, nothing out, safe to run twice."""

from celery import shared_task

from mms import operations, services


@shared_task(name="mms.run_operation")
def run_operation(operation_id: str) -> None:
    operations.run(operation_id)


@shared_task(name="mms.sweep_operations")
def sweep_operations() -> None:
    operations.sweep()


@shared_task(name="mms.watch_services")
def watch_services() -> None:
    services.watch()
