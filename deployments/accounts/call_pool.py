"""Threads for calls to servers, with few calls at a time per account so that a slow server doesn't block others.

Sends have separate threads, so that polls, lists and logs of an account never delay a user's action.
"""

import logging
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from django.db import close_old_connections

log = logging.getLogger(__name__)
MAX_CALLS_PER_ACCOUNT = 4
MAX_CALLS = 32
MAX_WAITING_PER_ACCOUNT = 1000

Work = Callable[[], None]


class CallPool:
    """Threads for calls to servers, at most MAX_CALLS_PER_ACCOUNT per account. Excess work is dropped or waits.

    A failing server is called by one thread at a time, so that several unresponsive servers don't occupy all threads.
    """

    def __init__(self, name: str = "mms-call") -> None:
        self._threads = ThreadPoolExecutor(MAX_CALLS, thread_name_prefix=name)
        self._busy: Counter[int] = Counter()
        self._waiting: defaultdict[int, deque[Work]] = defaultdict(deque)
        self._lock = threading.Lock()

    def free_slots(self, account_id: int, limit: int = MAX_CALLS_PER_ACCOUNT) -> int:
        """Return how many more calls for the account may start now. limit: maximum at a time."""
        with self._lock:
            return min(limit - self._busy[account_id], MAX_CALLS - self._busy.total())

    def submit(
        self,
        account_id: int,
        work: Callable[..., None],
        *args: Any,
        limit: int = MAX_CALLS_PER_ACCOUNT,
        may_wait: bool = False,
    ) -> "Future[None] | None":
        """Run `work(account_id, *args)` in a thread, or return None if no slot is free.

        may_wait: run it then in the account's next thread that becomes free, unless MAX_WAITING_PER_ACCOUNT wait.
        """
        with self._lock:
            if self._busy[account_id] >= limit or self._busy.total() >= MAX_CALLS:
                waiting = self._waiting[account_id]
                if may_wait and self._busy[account_id] and len(waiting) < MAX_WAITING_PER_ACCOUNT:
                    waiting.append(lambda: work(account_id, *args))
                return None
            self._busy[account_id] += 1
        return self._threads.submit(self._run, account_id, lambda: work(account_id, *args))

    def _run(self, account_id: int, work: Work) -> None:
        following: Work | None = work
        while following is not None:
            try:
                close_old_connections()
                following()
            except Exception:
                log.exception("Work for account %s failed and will be retried.", account_id)
            finally:
                close_old_connections()
                following = self._next(account_id)

    def _next(self, account_id: int) -> Work | None:
        """Return work that waits for a thread of the account, or free the slot."""
        with self._lock:
            if self._waiting[account_id]:
                return self._waiting[account_id].popleft()
            del self._waiting[account_id]
            self._busy[account_id] -= 1
            return None


SEND_POOL = CallPool("mms-send")
CALL_POOL = CallPool("mms-call")
