"""Asynchronous operations: accepted by the API, run by a worker, polled by clients.

    NotStarted -> Running -> Succeeded | Failed | Canceled

The row is authoritative and a queue message only a hint: `sweep` queues open operations that no worker runs, so that
none stays open forever after its worker was killed. Running an operation twice is safe: images are stored by
content, and an engine doesn't restart a running revision.
"""

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

from celery import current_app
from django.conf import settings
from django.db import DatabaseError, transaction
from django.utils import timezone
from kombu.exceptions import OperationalError

from mms import services
from mms.engines.base import EngineRefusedError, EngineUnavailableError
from mms.models import OPEN, Image, Operation, Service, State
from mms.operations import builds, leases
from mms.system import disk

log = logging.getLogger(__name__)

_sender = ThreadPoolExecutor(1, thread_name_prefix="mms-queue")

MAX_ATTEMPTS = 10  # an operation fails after its worker was lost this many times


def accept(operation: Operation) -> Operation:
    """Store a new operation, and queue it once the transaction is committed.

    A separate thread queues it, because an unreachable broker times out only after seconds.
    """
    operation.save(force_insert=True)
    transaction.on_commit(lambda: _sender.submit(enqueue, operation.id))
    return operation


def enqueue(operation_id: UUID) -> None:
    """Queue an operation for the workers. If the broker is unreachable, the next sweep queues it."""
    try:
        current_app.send_task("mms.run_operation", args=[str(operation_id)], retry=False)
    except OperationalError as error:
        log.warning("Operation %s waits for the next sweep, because the broker is unreachable: %s", operation_id, error)


def cancel(operation: Operation) -> bool:
    """Cancel an operation that hasn't started, or request that a build stops. Return False if neither is possible."""
    unstarted = Operation.objects.filter(leases.unclaimed(), pk=operation.pk, state=State.NOT_STARTED)
    with transaction.atomic():
        if unstarted.update(state=State.CANCELED, ended_at=timezone.now(), cancel_requested=True):
            operation.refresh_from_db()
            _apply_outcome(operation)
            return True
    building = Operation.objects.filter(pk=operation.pk, state__in=OPEN, image__isnull=False)
    return bool(building.update(cancel_requested=True))


def run(operation_id: str) -> None:
    """Run the operation and store its outcome, unless another worker has its lease."""
    lease = leases.acquire(operation_id)
    if lease is None:
        return
    related = ("image__manifest", "image__account", "service__image", "revision__image")
    operation = Operation.objects.select_related(*related).get(pk=operation_id)
    with lease.pid_file():
        with lease.renewing():
            outcome = _work(operation, lease)
        _finish(operation, lease, outcome)
    if operation.image_id:
        sweep()  # a build slot is free now


def sweep() -> None:
    """Queue all open operations that no worker is running, but not more image builds than there are slots."""
    leases.release_dead_workers()
    due = Operation.objects.filter(leases.unclaimed()).order_by("created_at")
    waiting = list(due.filter(image__isnull=False).values_list("id", flat=True)[: leases.free_build_slots()])
    waiting += due.filter(image__isnull=True).values_list("id", flat=True)
    for operation_id in waiting:
        enqueue(operation_id)


def _work(operation: Operation, lease: leases.Lease) -> dict[str, Any]:
    """Run the handler. Return the changes to the row that end the operation: its state, and its error, if any."""
    if operation.cancel_requested:
        return {"state": State.CANCELED}
    if operation.attempts > MAX_ATTEMPTS:
        return _failed(
            "WorkerLost",
            f"The worker stopped unexpectedly {MAX_ATTEMPTS} times during this operation. Check the server's log.",
        )
    try:
        HANDLERS[operation.verb](operation, lease)
    except builds.BuildStoppedError:
        return {"state": State.CANCELED}
    except (builds.BuildError, services.RolloutError) as error:
        return _failed(error.code, error.message, error.details)
    except EngineRefusedError as error:
        return _failed("EngineRefused", str(error))
    except EngineUnavailableError as error:
        return _failed("EngineUnavailable", str(error))
    except DatabaseError:
        raise  # the worker that acquires the lease next starts again
    except Exception as error:
        if disk.is_full(error):
            return _failed("NoSpace", f"{error}. Free space on the disk of {settings.DATA_DIR}, then retry.")
        log.exception("Operation %s failed.", operation.id)
        return _failed(
            "ServerError",
            f"The server failed to run this operation ({type(error).__name__}). Check its log for the cause.",
        )
    return {"state": State.SUCCEEDED}


def _failed(code: str, message: str, details: list[dict[str, str]] | None = None) -> dict[str, Any]:
    storable = [{name: _storable(text) for name, text in item.items()} for item in details or []]
    return {"state": State.FAILED, "error": {"code": code, "message": _storable(message), "details": storable}}


def _storable(text: str) -> str:
    """Return the text without characters that databases reject. Logs can have any bytes; PostgreSQL can't store NUL."""
    return text.encode(errors="replace").decode().replace("\0", "?")


def _create_image(operation: Operation, lease: leases.Lease) -> None:
    image = operation.image
    assert image is not None  # noqa: S101 - has one because of its verb
    result = builds.build(image, lease.should_stop)
    image.digest, image.reference, image.result = result["digest"], result["reference"], result


def _roll_out(operation: Operation, _: leases.Lease) -> None:
    Service.objects.filter(operations=operation, state=State.NOT_STARTED).update(state=State.RUNNING)
    services.roll_out(operation)


def _delete_service(operation: Operation, _: leases.Lease) -> None:
    assert operation.service is not None  # noqa: S101 - has one because of its verb
    services.take_down(operation.service)


HANDLERS = {
    "create_image": _create_image,
    "create_service": _roll_out,
    "update_service": _roll_out,
    "delete_service": _delete_service,
}


def _finish(operation: Operation, lease: leases.Lease, outcome: dict[str, Any]) -> None:
    with transaction.atomic():
        if not lease.release(ended_at=timezone.now(), **outcome):
            log.warning("Another worker acquired operation %s. Dropping this result.", operation.id)
            return
        operation.state = outcome["state"]
        _apply_outcome(operation)


def _apply_outcome(operation: Operation) -> None:
    """Update the image or service of an operation that has ended."""
    if operation.image:
        image_id = operation.image.pk
        transaction.on_commit(
            lambda: builds.cleanup(image_id), robust=True
        )  # after the commit, when the database isn't locked
        # The password was only for pushing this build.
        changes = {"digest": operation.image.digest, "reference": operation.image.reference}
        Image.objects.filter(pk=operation.image.pk).update(
            registry_password=None, result=operation.image.result, **changes
        )
    elif operation.service and operation.verb != "delete_service":
        _update_service_state(operation.service, operation.state)


def _update_service_state(service: Service, state: str) -> None:
    """Set a service's state to that of its last operation, or Succeeded if an active revision still serves."""
    if service.revisions.filter(state="active").exists():
        state = State.SUCCEEDED
    Service.objects.filter(pk=service.pk).update(state=state, updated_at=timezone.now())
