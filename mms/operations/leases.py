"""Who works on an operation: a lease in the database that a live worker keeps renewing.

A queue message is only a hint and may come twice; the row says what is due. A worker that dies stops renewing, and
after LEASE_DURATION any worker may take the operation over. The time itself is the fence: every write of a worker
is conditional on the moment it wrote last, so one that lost its lease changes nothing.

A worker that was killed on this machine need not be waited for: beside each lease it holds a locked file, and a file
that is there without its lock says that nobody holds that lease any more.
"""

import fcntl
import logging
import os
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
CHECK_INTERVAL_SECONDS = 1.0  # seconds between looks at the row: how soon a cancel is seen


class Lease:
    """The right to work on one operation until `until`, which moves on while `kept()` is open."""

    def __init__(self, operation_id: str, attempt: int, until: datetime) -> None:
        self.operation_id, self.attempt, self.until = operation_id, attempt, until
        self.canceled = threading.Event()
        self.lost = threading.Event()

    def should_stop(self) -> bool:
        """Whether the work should end early: somebody asked for it, or another worker took it over."""
        return self.canceled.is_set() or self.lost.is_set()

    def renew(self) -> None:
        until = timezone.now() + LEASE_DURATION
        if self._rows().update(claimed_until=until):
            self.until = until
        else:
            self.lost.set()

    def _rows(self) -> QuerySet[Operation]:
        return Operation.objects.filter(pk=self.operation_id, claimed_until=self.until, state=State.RUNNING)

    def release(self, **changes: object) -> bool:
        """Give it up with these changes to the row. False, and nothing written, where the lease was lost."""
        return bool(self._rows().update(claimed_until=None, **changes))

    @contextmanager
    def pid_file(self) -> Iterator[None]:
        """Show to this machine that the worker lives, until the block ends."""
        with ExitStack() as stack:
            try:
                file = stack.enter_context(tempfile.NamedTemporaryFile(dir=_marks(), prefix=".", delete=False))
                fcntl.flock(file, fcntl.LOCK_EX)
                mark = _marks() / f"{self.operation_id}.{self.attempt}"
                os.rename(file.name, mark)  # it appears with its lock
                stack.callback(mark.unlink, missing_ok=True)
            except OSError as error:
                log.warning("Operation %s is held by its lease alone: %s", self.operation_id, error)
            yield

    @contextmanager
    def renewing(self) -> Iterator[None]:
        """Renew in a thread until the block ends."""
        done = threading.Event()
        keeper = threading.Thread(target=self._keep, args=[done], name=f"lease {self.operation_id}", daemon=True)
        keeper.start()
        try:
            yield
        finally:
            done.set()
            keeper.join()

    def _keep(self, done: threading.Event) -> None:
        try:
            while not done.wait(CHECK_INTERVAL_SECONDS) and not self.lost.is_set():
                try:
                    self._look()
                except DatabaseError:  # the next tick tries again; the lease outlasts many
                    log.warning("The lease of operation %s could not be renewed.", self.operation_id, exc_info=True)
        finally:
            connection.close()

    def _look(self) -> None:
        if Operation.objects.filter(pk=self.operation_id, cancel_requested=True).exists():
            self.canceled.set()
        if self.until - timezone.now() < LEASE_DURATION * 0.75:
            self.renew()


def acquire(operation_id: str) -> Lease | None:
    """Lease the operation; None where it is over, somebody works on it, or too many builds run already."""
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
    """Give back what workers of this machine held when they were killed, without waiting for the end of a lease."""
    for mark in _marks().iterdir():
        with locked(mark, wait=False) as dead:
            if not dead:
                continue
            operation_id, _, attempt = mark.name.partition(".")
            if operation_id:
                held = Operation.objects.filter(pk=operation_id, attempts=attempt, state=State.RUNNING)
                held.update(claimed_until=None)
            mark.unlink(missing_ok=True)


def _marks() -> Path:
    folder = Path(settings.MMS_DIR) / "claims"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def unclaimed() -> Q:
    """Open operations nobody works on."""
    return Q(state__in=OPEN) & (Q(claimed_until=None) | Q(claimed_until__lt=timezone.now()))


def free_build_slots() -> int:
    """How many more image builds may start now."""
    running = Operation.objects.filter(image__isnull=False, state=State.RUNNING, claimed_until__gte=timezone.now())
    return max(settings.MMS_BUILDS - running.count(), 0)
