"""Leases on operations: a time in the database, which the worker that runs the operation renews.

Queue messages are only hints and may be delivered twice; the row is authoritative. When a worker is killed, its leases
expire after LEASE_DURATION, and another worker may acquire the operation. The time is also the fencing token: each
write of a worker is conditional on the time it last wrote, so a worker that lost its lease changes nothing.

Leases of workers that were killed on this machine are released earlier: a worker holds a locked file for each lease,
and an unlocked file shows that its worker has exited.
"""

import fcntl
import logging
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from mms.models import OPEN, Operation, State
from mms.system.locks import locked

log = logging.getLogger(__name__)

LEASE_DURATION = timedelta(seconds=20)
CHECK_INTERVAL_SECONDS = 1.0  # between checks of the row, which detect a cancellation


class Lease:
    """The exclusive right to run an operation until `until`, which is extended inside `renewing()`."""

    def __init__(self, operation_id: str, attempt: int, until: datetime) -> None:
        self.operation_id, self.attempt, self.until = operation_id, attempt, until
        self.canceled = threading.Event()
        self.lost = threading.Event()

    def should_stop(self) -> bool:
        """Return True if the work should end early: it was canceled, or another worker acquired the operation."""
        return self.canceled.is_set() or self.lost.is_set()

    def renew(self) -> None:
        """Extend the lease by LEASE_DURATION from now, or set `lost`."""
        until = timezone.now() + LEASE_DURATION
        if self._rows().update(claimed_until=until):
            self.until = until
        else:
            self.lost.set()

    def _rows(self) -> QuerySet[Operation]:
        return Operation.objects.filter(pk=self.operation_id, claimed_until=self.until, state=State.RUNNING)

    def release(self, **changes: object) -> bool:
        """Release the lease and write `changes` to the row. Return False, and write nothing, if the lease was lost."""
        return bool(self._rows().update(claimed_until=None, **changes))

    @contextmanager
    def pid_file(self) -> Iterator[None]:
        """Hold a locked file until the block ends, which shows other processes that this worker is running."""
        with ExitStack() as stack:
            try:
                file = stack.enter_context(tempfile.NamedTemporaryFile(dir=_pid_dir(), prefix=".", delete=False))
                fcntl.flock(file, fcntl.LOCK_EX)
                path = _pid_dir() / f"{self.operation_id}.{self.attempt}"
                Path(file.name).rename(path)  # already locked when it appears
                stack.callback(path.unlink, missing_ok=True)
            except OSError as error:
                log.warning("Operation %s has a lease without a PID file: %s", self.operation_id, error)
            yield

    @contextmanager
    def renewing(self) -> Iterator[None]:
        """Renew the lease in a thread until the block ends."""
        done = threading.Event()
        thread = threading.Thread(target=self._renew_until, args=[done], name=f"lease {self.operation_id}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _renew_until(self, done: threading.Event) -> None:
        try:
            while not done.wait(CHECK_INTERVAL_SECONDS) and not self.lost.is_set():
                try:
                    self._check()
                except DatabaseError:  # retried at the next check; the lease lasts for many
                    log.warning("Couldn't renew the lease of operation %s.", self.operation_id, exc_info=True)
        finally:
            connection.close()

    def _check(self) -> None:
        if Operation.objects.filter(pk=self.operation_id, cancel_requested=True).exists():
            self.canceled.set()
        if self.until - timezone.now() < LEASE_DURATION * 0.75:
            self.renew()


def acquire(operation_id: str) -> Lease | None:
    """Acquire the lease of an operation. Return None if it has ended, is running, or too many builds are running."""
    with transaction.atomic():
        operation = Operation.objects.select_for_update().filter(unclaimed(), pk=operation_id).first()
        if operation is None or (operation.image_id and not free_build_slots()):
            return None
        lease = Lease(operation_id, operation.attempts + 1, timezone.now() + LEASE_DURATION)
        Operation.objects.filter(pk=operation_id).update(
            state=State.RUNNING, claimed_until=lease.until, attempts=lease.attempt
        )
    return lease


def release_dead_workers() -> None:
    """Release the leases of workers that were killed on this machine, without waiting for them to expire."""
    for path in _pid_dir().iterdir():
        with locked(path, wait=False) as is_unlocked:
            if not is_unlocked:
                continue
            operation_id, _, attempt = path.name.partition(".")
            if operation_id:
                abandoned = Operation.objects.filter(pk=operation_id, attempts=attempt, state=State.RUNNING)
                abandoned.update(claimed_until=None)
            path.unlink(missing_ok=True)


def _pid_dir() -> Path:
    folder = Path(settings.MMS_DIR) / "claims"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def unclaimed() -> Q:
    """Return a filter for open operations that no worker has leased."""
    return Q(state__in=OPEN) & (Q(claimed_until=None) | Q(claimed_until__lt=timezone.now()))


def free_build_slots() -> int:
    """Return how many more image builds may start now."""
    running = Operation.objects.filter(image__isnull=False, state=State.RUNNING, claimed_until__gte=timezone.now())
    return max(settings.MMS_BUILDS - running.count(), 0)
