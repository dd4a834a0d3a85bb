"""Dispatch of due work to threads, with few calls at a time per account so that a slow server doesn't block others.

Due work is read from the database. A tick runs every second; a queue message only starts one operation sooner.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import OperationalError, close_old_connections
from django.db.models import QuerySet
from django.utils import timezone

from deployments.accounts.availability import client_for, is_callable
from deployments.client.client import MMSClient
from deployments.live.transitions import retry_on_lock, transition
from deployments.models import HostingAccount, Operation
from deployments.models.operation import ACCEPTED, State
from deployments.operations import reconcile, run
from deployments.timing import MAX_UNSENT_SECONDS, TICK_AHEAD_SECONDS, TURN_SECONDS

log = logging.getLogger(__name__)
MAX_CALLS_PER_ACCOUNT = 4
MAX_CALLS = 32
BATCH_OPERATIONS = 50  # per thread and connection

STEPS: dict[str, Callable[[Operation, MMSClient], None]] = {
    State.QUEUED: run.send,
    State.UNCERTAIN: reconcile.reconcile,
    State.NOT_STARTED: run.poll,
    State.RUNNING: run.poll,
}
POLLED = ACCEPTED | {State.UNCERTAIN}


class CallPool:
    """Threads for calls to servers, at most MAX_CALLS_PER_ACCOUNT per account. Excess work is dropped, not queued.

    A failing server is called by one thread at a time, so that several unresponsive servers don't occupy all threads.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(MAX_CALLS, thread_name_prefix="mms-call")
        self._busy: Counter[int] = Counter()
        self._lock = threading.Lock()

    def free_slots(self, account_id: int, limit: int = MAX_CALLS_PER_ACCOUNT) -> int:
        """Return how many more calls for the account may start now. limit: maximum at a time."""
        with self._lock:
            return min(limit - self._busy[account_id], MAX_CALLS - self._busy.total())

    def submit(
        self, account_id: int, work: Callable[..., None], *args: Any, limit: int = MAX_CALLS_PER_ACCOUNT
    ) -> "Future[None] | None":
        """Run `work(account_id, *args)` in a thread, or return None if no slot is free."""
        with self._lock:
            if self._busy[account_id] >= limit or self._busy.total() >= MAX_CALLS:
                return None
            self._busy[account_id] += 1
        return self._threads.submit(self._run, account_id, work, *args)

    def _run(self, account_id: int, work: Callable[..., None], *args: Any) -> None:
        try:
            close_old_connections()
            work(account_id, *args)
        except Exception:
            log.exception("Work for account %s failed and will be retried.", account_id)
        finally:
            close_old_connections()
            with self._lock:
                self._busy[account_id] -= 1


CALL_POOL = CallPool()


def tick() -> "list[Future[None]]":
    """Start all due work of accounts whose server may be called. Return the futures without waiting."""
    due = _due()
    accounts = HostingAccount.objects.filter(is_callable(), pk__in=due.values("account")).order_by("pk")
    started = [_start_batches(account, due) for account in accounts.only("error")]
    return [future for batch in started for future in batch]


def start(operation_id: str) -> None:
    """Run the operation's next step without waiting for the tick. If no slot is free, a later tick runs it."""
    found = Operation.objects.filter(pk=operation_id, state__in=STEPS).select_related("account").first()
    if found is not None:
        CALL_POOL.submit(found.account_id, run_steps, [UUID(operation_id)], limit=max_calls(found.account))


def max_calls(account: HostingAccount) -> int:
    """Return how many threads may call the account's server at a time."""
    return 1 if account.error else MAX_CALLS_PER_ACCOUNT


def run_steps(account_id: int, operation_ids: Sequence[UUID]) -> None:
    """Run each operation's next step on one connection, until the server fails or TURN_SECONDS have passed.

    The next tick runs the rest, which remains due.
    """
    account, until = _callable_account(account_id).first(), time.monotonic() + TURN_SECONDS
    if account is None:
        return
    with client_for(account) as client:
        for operation_id in operation_ids:
            step(operation_id, client, account)
            # Queried again, because another thread may have recorded a pause.
            if time.monotonic() > until or not _callable_account(account_id).exists():
                return


def step(operation_id: UUID, client: MMSClient, account: HostingAccount) -> None:
    """Run the operation's next step. Safe at any time: each step is claimed in the database first."""
    rows = Operation.objects.select_related("model", "manifest", "image", "service")
    operation = rows.filter(pk=operation_id, account=account).first()
    if operation is not None and operation.state in STEPS:
        operation.account = account
        polled = operation.state in POLLED  # read first: a failed transaction has changed the object
        try:
            STEPS[operation.state](operation, client)
        except OperationalError:
            if polled:
                retry_on_lock(_reschedule, operation)  # else it is only polled when its lease expires
            raise


def _reschedule(operation: Operation) -> None:
    """Reschedule an operation whose poll result couldn't be stored."""
    polled = Operation.objects.filter(pk=operation.pk, state__in=POLLED, next_poll_at__isnull=False)
    polled.update(next_poll_at=timezone.now())


def sweep() -> None:
    """Mark operations of lost workers as uncertain, and fail those unsent for MAX_UNSENT_SECONDS."""
    now = timezone.now()
    for operation in Operation.objects.filter(state=State.SENDING, claimed_until__lt=now):
        run.mark_uncertain(operation, "The worker that sent this stopped before it received the response.")
    before = now - timedelta(seconds=MAX_UNSENT_SECONDS)
    # Only operations that were never sent. The outcome of any other may still be found.
    unsent = Operation.objects.filter(
        state=State.QUEUED,
        attempts=0,
        requested_at__lt=before,
        account__error_at__lt=before,
    )
    for operation in unsent.select_related("account"):
        reason = f"Nothing was sent, because the server couldn't be called: {operation.account.error}"
        transition(operation, State.FAILED, expected={State.QUEUED}, error_code="NotSent", error_message=reason)


def _callable_account(account_id: int) -> "QuerySet[HostingAccount]":
    return HostingAccount.objects.filter(is_callable(), pk=account_id)


def _due() -> "QuerySet[Operation]":
    return Operation.objects.filter(
        state__in=STEPS, next_poll_at__lte=timezone.now() + timedelta(seconds=TICK_AHEAD_SECONDS)
    )


def _start_batches(account: HostingAccount, due: "QuerySet[Operation]") -> "list[Future[None]]":
    limit = max_calls(account)
    slots = CALL_POOL.free_slots(account.pk, limit)
    if slots <= 0:
        return []
    ids = list(
        due.filter(account=account).order_by("next_poll_at").values_list("pk", flat=True)[: BATCH_OPERATIONS * slots]
    )
    parts = [ids[part::slots] for part in range(min(slots, len(ids)))]
    futures = [CALL_POOL.submit(account.pk, run_steps, part, limit=limit) for part in parts]
    return [future for future in futures if future is not None]
