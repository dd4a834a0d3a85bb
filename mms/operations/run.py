"""Asynchronous operations: accepted by the API, worked on by a worker, asked about by clients.

    NotStarted → Running → Succeeded | Failed | Canceled

The row is the truth and a queue message only a hint: `sweep` hands out again what nobody works on, so that nothing
stays open for ever after a kill. All work is safe to begin again: images are stored by content, an engine leaves
alone what runs already.
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

_courier = ThreadPoolExecutor(1, thread_name_prefix="mms-queue")

MAX_ATTEMPTS = 10  # an operation whose workers keep dying has an end, too


def accept(operation: Operation) -> Operation:
    """Store a new operation; a worker is told once the transaction has ended.

    Told by a thread of its own: a queue out of reach takes seconds to say so, and no request waits for that.
    """
    operation.save(force_insert=True)
    transaction.on_commit(lambda: _courier.submit(enqueue, operation.id))
    return operation


def enqueue(operation_id: UUID) -> None:
    """Tell a worker. Without a queue the operation waits for the sweep; it is stored already."""
    try:
        current_app.send_task("mms.run_operation", args=[str(operation_id)], retry=False)
    except OperationalError as error:
        log.warning("Operation %s waits for the sweep: the queue is out of reach (%s).", operation_id, error)


def cancel(operation: Operation) -> bool:
    """Ask for the end of an operation: at once where nobody has begun, soon for a build. False: too late for it."""
    over = Operation.objects.filter(leases.unclaimed(), pk=operation.pk, state=State.NOT_STARTED)
    with transaction.atomic():
        if over.update(state=State.CANCELED, ended_at=timezone.now(), cancel_requested=True):
            operation.refresh_from_db()
            _after(operation)
            return True
    building = Operation.objects.filter(pk=operation.pk, state__in=OPEN, image__isnull=False)
    return bool(building.update(cancel_requested=True))


def run(operation_id: str) -> None:
    """Do what the operation asks for, if nobody else does, and write down how it ended."""
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
        sweep()  # a place for the next build is free


def sweep() -> None:
    """Hand out every open operation that nobody works on; image builds only as many as may run."""
    leases.release_dead_workers()
    due = Operation.objects.filter(leases.unclaimed()).order_by("created_at")
    waiting = list(due.filter(image__isnull=False).values_list("id", flat=True)[: leases.free_build_slots()])
    waiting += due.filter(image__isnull=True).values_list("id", flat=True)
    for operation_id in waiting:
        enqueue(operation_id)


def _work(operation: Operation, lease: leases.Lease) -> dict[str, Any]:
    """The work itself. Returns the changes that end the operation: its state, and the error if there is one."""
    if operation.cancel_requested:
        return {"state": State.CANCELED}
    if operation.attempts > MAX_ATTEMPTS:
        return _failed(
            "WorkerLost", f"The worker died {MAX_ATTEMPTS} times while it worked on this. See the server's log."
        )
    try:
        HANDLERS[operation.verb](operation, lease)
    except builds.BuildStoppedError:
        return {"state": State.CANCELED}
    except (builds.BuildError, services.RolloutError) as failure:
        return _failed(failure.code, failure.message, failure.details)
    except EngineRefusedError as refusal:
        return _failed("EngineRefused", str(refusal))
    except EngineUnavailableError as trouble:
        return _failed("EngineUnavailable", str(trouble))
    except DatabaseError:
        raise  # whoever takes the lease over begins again
    except Exception as unforeseen:
        if disk.is_full(unforeseen):
            return _failed("NoSpace", f"{unforeseen}. Make room on the disk of {settings.DATA_DIR}, then try again.")
        log.exception("Operation %s failed.", operation.id)
        return _failed("ServerError", f"The server failed ({type(unforeseen).__name__}). Its log says more.")
    return {"state": State.SUCCEEDED}


def _failed(code: str, message: str, details: list[dict[str, str]] | None = None) -> dict[str, Any]:
    told = [{name: _storable(text) for name, text in item.items()} for item in details or []]
    return {"state": State.FAILED, "error": {"code": code, "message": _storable(message), "details": told}}


def _storable(text: str) -> str:
    """The text as every database takes it. The end of a log may hold anything, and PostgreSQL stores no NUL."""
    return text.encode(errors="replace").decode().replace("\0", "?")


def _create_image(operation: Operation, lease: leases.Lease) -> None:
    image = operation.image
    assert image is not None  # noqa: S101 - by its verb
    result = builds.build(image, lease.should_stop)
    image.digest, image.reference, image.result = result["digest"], result["reference"], result


def _roll_out(operation: Operation, lease: leases.Lease) -> None:
    Service.objects.filter(operations=operation, state=State.NOT_STARTED).update(state=State.RUNNING)
    services.roll_out(operation)


def _delete_service(operation: Operation, lease: leases.Lease) -> None:
    assert operation.service is not None  # noqa: S101 - by its verb
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
            log.warning("Operation %s was taken over by another worker; this result is dropped.", operation.id)
            return
        operation.state = outcome["state"]
        _after(operation)


def _after(operation: Operation) -> None:
    """What the end of an operation means for the resource it is about."""
    if operation.image:
        image_id = operation.image.pk
        transaction.on_commit(lambda: builds.cleanup(image_id), robust=True)  # not while the database is locked
        # The password was for the push of this one build.
        changes = {"digest": operation.image.digest, "reference": operation.image.reference}
        Image.objects.filter(pk=operation.image.pk).update(
            registry_password=None, result=operation.image.result, **changes
        )
    elif operation.service and operation.verb != "delete_service":
        _settle(operation.service, operation.state)


def _settle(service: Service, state: str) -> None:
    """A service is in the state of its last operation, unless that failed and an older revision still serves."""
    if service.revisions.filter(state="active").exists():
        state = State.SUCCEEDED
    Service.objects.filter(pk=service.pk).update(state=state, updated_at=timezone.now())
