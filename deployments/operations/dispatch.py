"""Dispatch of due work to threads: requests that wait to be sent first, then polls.

Due work is read from the database. A tick runs every second; a queue message only starts one operation sooner.
"""

import logging
import math
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import timedelta
from uuid import UUID

from django.db import OperationalError
from django.db.models import QuerySet
from django.utils import timezone

from deployments.accounts.availability import client_for, is_callable, refused_and_due, retry_refused
from deployments.accounts.call_pool import CALL_POOL, MAX_CALLS_PER_ACCOUNT, SEND_POOL, CallPool
from deployments.client.client import MAX_IDS, MMSClient
from deployments.live.transitions import retry_on_lock, transition
from deployments.models import HostingAccount, Operation
from deployments.models.operation import ACCEPTED, State
from deployments.operations import poll, reconcile, run
from deployments.timing import FAST_POLL_SECONDS, MAX_UNSENT_SECONDS, TICK_AHEAD_SECONDS, TURN_SECONDS

log = logging.getLogger(__name__)
BATCH_OPERATIONS = 50  # per thread and connection
# Polls that one tick starts per account, so that thousands of pending operations take a fraction of a core. The most
# overdue come first. New ones are preferred, except for MIN_OLD_POLLS.
MAX_POLLS = 100
MAX_YOUNG_POLLS = 150
MIN_OLD_POLLS = 40
MAX_BATCHED_POLLS = 2000  # at a server that returns the states of several operations at a time
MIN_POLLS_PER_THREAD = 10
MAX_FAILING_POLLS = 10  # of operations whose state couldn't be read: in one thread, apart from the others

STEPS: dict[str, Callable[[Operation, MMSClient], None]] = {
    State.QUEUED: run.send,
    State.UNCERTAIN: reconcile.reconcile,
    State.NOT_STARTED: poll.poll,
    State.RUNNING: poll.poll,
}


def tick() -> "list[Future[None]]":
    """Start all due work of accounts whose server may be called. Return the futures without waiting."""
    sends, polls = _start_due({State.QUEUED}, _start_sends), _start_due(run.POLLED, _start_polls)
    retried = HostingAccount.objects.filter(refused_and_due()).values_list("pk", flat=True)
    return [*sends, *polls, *filter(None, (CALL_POOL.submit(pk, retry_refused) for pk in retried))]


def start(operation_id: str) -> None:
    """Run the operation's next step without waiting for the tick, as soon as the account has a free thread."""
    found = Operation.objects.filter(pk=operation_id, state__in=STEPS).select_related("account").first()
    if found is not None:
        pool, limit = _pool_for(found.state), max_calls(found.account)
        is_send = found.state == State.QUEUED
        pool.submit(found.account_id, run_steps, [UUID(operation_id)], limit=limit, may_wait=is_send)


def max_calls(account: HostingAccount) -> int:
    """Return how many threads of a pool may call the account's server at a time."""
    return 1 if account.is_failing else MAX_CALLS_PER_ACCOUNT


def run_steps(account_id: int, operation_ids: Sequence[UUID]) -> None:
    """Run each operation's next step on one connection, until the server fails or TURN_SECONDS have passed.

    The next tick runs the rest, which remains due.
    """
    account, is_over = _begin_turn(account_id)
    if account is None:
        return
    with client_for(account) as client:
        for operation_id in operation_ids:
            step(operation_id, client, account)
            if is_over():
                return


def run_polls(account_id: int, operation_ids: Sequence[UUID]) -> None:
    """Poll the operations on one connection, until the server fails or TURN_SECONDS have passed."""
    account, is_over = _begin_turn(account_id)
    if account is not None:
        with client_for(account) as client:
            poll.poll_batch(account, operation_ids, client, is_over)


def _begin_turn(account_id: int) -> tuple[HostingAccount | None, Callable[[], bool]]:
    """Return the account if its server may be called, and a function that returns True once the turn is over."""
    until = time.monotonic() + TURN_SECONDS

    def is_over() -> bool:
        # Queried again, because another thread may have recorded a pause.
        return time.monotonic() > until or not _callable_account(account_id).exists()

    return _callable_account(account_id).first(), is_over


def step(operation_id: UUID, client: MMSClient, account: HostingAccount) -> None:
    """Run the operation's next step. Safe at any time: each step is claimed in the database first.

    An unexpected exception is recorded on the operation, so that it ends neither the batch nor the worker.
    """
    rows = Operation.objects.select_related("model", "manifest", "image", "service")
    operation = rows.filter(pk=operation_id, account=account).first()
    if operation is not None and operation.state in STEPS:
        operation.account = account
        polled = operation.state in run.POLLED  # read first: a failed transaction has changed the object
        try:
            STEPS[operation.state](operation, client)
        except OperationalError:
            if polled:
                retry_on_lock(poll.reschedule, operation)  # else it is only polled when its lease expires
            raise
        except Exception as error:
            run.record_unexpected(operation, error)


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
        account__failed_request="",
    )
    for operation in unsent.select_related("account"):
        reason = f"Nothing was sent, because the server couldn't be called: {operation.account.error}"
        transition(operation, State.FAILED, expected={State.QUEUED}, error_code="NotSent", error_message=reason)


def _pool_for(state: str) -> CallPool:
    return SEND_POOL if state == State.QUEUED else CALL_POOL


def _callable_account(account_id: int) -> "QuerySet[HostingAccount]":
    return HostingAccount.objects.filter(is_callable(), pk=account_id)


def _start_due(
    states: "set[State] | frozenset[State]",
    start_account: "Callable[[HostingAccount, QuerySet[Operation]], list[Future[None] | None]]",
) -> "list[Future[None]]":
    """Call `start_account` for each account with due operations in these states. Return the futures."""
    until = timezone.now() + timedelta(seconds=TICK_AHEAD_SECONDS)
    due = Operation.objects.filter(state__in=states, next_poll_at__lte=until)
    accounts = HostingAccount.objects.filter(is_callable(), pk__in=due.values("account")).order_by("pk")
    accounts = accounts.defer(*HostingAccount.SECRETS)
    started = [start_account(account, due.filter(account=account).order_by("next_poll_at")) for account in accounts]
    return [future for batch in started for future in batch if future is not None]


def _start_sends(account: HostingAccount, due: "QuerySet[Operation]") -> "list[Future[None] | None]":
    limit = max_calls(account)
    slots = SEND_POOL.free_slots(account.pk, limit)
    if slots <= 0:
        return []
    ids = list(due.values_list("pk", flat=True)[: BATCH_OPERATIONS * slots])
    parts = [ids[part::slots] for part in range(min(slots, len(ids)))]
    return [SEND_POOL.submit(account.pk, run_steps, part, limit=limit) for part in parts]


def _start_polls(account: HostingAccount, due: "QuerySet[Operation]") -> "list[Future[None] | None]":
    limit = max_calls(account)
    uncertain = list(due.filter(state=State.UNCERTAIN).values_list("pk", flat=True)[:BATCH_OPERATIONS])
    accepted = due.filter(state__in=ACCEPTED)
    failing = list(accepted.filter(failures__gt=0).values_list("pk", flat=True)[:MAX_FAILING_POLLS])
    ids = _next_to_poll(account, accepted.filter(failures=0))
    others = [(run_steps, uncertain), (run_polls, failing)]
    slots = CALL_POOL.free_slots(account.pk, limit) - sum(bool(part) for _, part in others)
    threads = _threads_for(account, len(ids), max(slots, 1))
    work = [*((run_polls, ids[part::threads]) for part in range(threads)), *others]
    random.shuffle(work)  # if too few threads are free, each kind of work gets one sooner or later
    return [CALL_POOL.submit(account.pk, call, part, limit=limit) for call, part in work if part]


def _next_to_poll(account: HostingAccount, due: "QuerySet[Operation]") -> list[UUID]:
    """Return the operations to poll in this tick. New ones are preferred, because users are waiting for them."""
    limit, young_limit = MAX_POLLS, MAX_YOUNG_POLLS
    if poll.returns_several_states(account.pk):
        limit = young_limit = MAX_BATCHED_POLLS
    is_young = {"accepted_at__gt": timezone.now() - timedelta(seconds=FAST_POLL_SECONDS)}
    young = list(due.filter(**is_young).values_list("pk", flat=True)[:young_limit])
    old = list(due.exclude(**is_young).values_list("pk", flat=True)[: max(MIN_OLD_POLLS, limit - len(young))])
    return young[: young_limit - len(old)] + old


def _threads_for(account: HostingAccount, count: int, slots: int) -> int:
    per_thread = MAX_IDS if poll.returns_several_states(account.pk) else MIN_POLLS_PER_THREAD
    return max(0, min(slots, math.ceil(count / per_thread)))
