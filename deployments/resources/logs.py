"""Logs of operations and services, fetched while a user views them or the operation is open, and stored in Redis."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deployments.accounts.availability import record_failure
from deployments.client import errors, wire_values
from deployments.client.client import LogText, MMSClient
from deployments.live import events, redis
from deployments.models import HostingAccount, Operation, Service
from deployments.timing import TURN_SECONDS
from netguard.redaction import MAX_SPELLED_BYTES, Redactor

log = logging.getLogger(__name__)
MAX_LINE_CHARS = 4000
LOCK_SECONDS = 90  # longer than TURN_SECONDS plus one call
FAILURE_PAUSE_SECONDS = 10  # before a log that couldn't be read is tried again


def fetch_operation_log(
    operation: Operation, client: MMSClient, last: bool = False, seconds: float = TURN_SECONDS
) -> None:
    """Append new lines of the operation's log. If that fails, they are fetched later.

    last: the operation has ended, so an unterminated last line is complete. seconds: no further call starts then.
    """
    key = events.operation_log_key(operation)
    with _recording_failures(operation.account):
        _fetch(key, lambda after: client.get_operation_log(operation.mms_operation_id, after), last, seconds)


def fetch_service_log(service: Service, client: MMSClient, seconds: float = TURN_SECONDS) -> None:
    """Append new lines of the log of the service's newest revision. If that fails, they are fetched later.

    seconds: no further call starts then.
    """
    key, mms_id = events.service_log_key(service), service.mms_id or ""
    revision = int(key.rpartition(":")[2]) or None
    with _recording_failures(service.account):
        _fetch(key, lambda after: client.get_service_log(mms_id, revision, after), seconds=seconds)


@contextmanager
def _recording_failures(account: HostingAccount) -> Iterator[None]:
    """Record busy servers and rejected tokens for the account; log other errors, which only affect this log."""
    try:
        yield
    except (errors.BusyError, errors.TokenRefusedError) as error:
        record_failure(account, error)
    except errors.MMSError as error:
        log.info("Couldn't read a log of account %s: %s", account, error)


def _fetch(key: str, read: Callable[[int], LogText], last: bool = False, seconds: float = TURN_SECONDS) -> None:
    """Append new lines unless another worker is fetching this log. Raises MMSError, after a pause for this log."""
    token = redis.acquire_lock(key, seconds=LOCK_SECONDS, fallback=False)
    if not token:
        return
    started = time.monotonic()
    try:
        while time.monotonic() - started < seconds:
            mark = events.log_mark(key)
            # Redis is unavailable, the server has no logs, or nothing is left to fetch.
            if mark is None or mark.reported is False or not _fetch_part(key, mark, read, last):
                break
    except (errors.NotFoundError, errors.NotSupportedError):
        events.append_log(key, [], 0, reported=False)
    except errors.MMSError as error:
        events.record_log_error(key, str(error))
        redis.release_lock(key, token)
        redis.acquire_lock(key, seconds=FAILURE_PAUSE_SECONDS, fallback=False)
        raise
    redis.release_lock(key, token)


def _fetch_part(key: str, mark: events.LogMark, read: Callable[[int], LogText], last: bool) -> bool:
    """Append the next part. Return True if there may be more."""
    part = read(mark.position)
    complete, rest = _lines(part.body, part.redactor)
    if last and rest:
        complete, rest = [*complete, rest], b""
    lines = [
        wire_values.text(part.redactor.text(wire_values.text(line.decode("utf-8", "replace"))), MAX_LINE_CHARS)
        for line in complete
    ]
    events.append_log(key, lines, part.position - len(rest), is_complete=last and not part.body)
    return bool(part.body) and (bool(lines) or last)


def _lines(body: bytes, redactor: Redactor) -> tuple[list[bytes], bytes]:
    """Split into complete lines and an incomplete last one. A long last line is divided, but not within a secret."""
    *whole, rest = body.split(b"\n")
    if len(rest) <= MAX_LINE_CHARS + MAX_SPELLED_BYTES:
        return whole, rest
    text = rest.decode("utf-8", "surrogateescape")
    cut = len(text) - MAX_SPELLED_BYTES // 4  # characters have up to four bytes
    for start, end in redactor.spans(text):
        if start < cut < end:
            cut = start or end
    head = text[:cut].encode("utf-8", "surrogateescape")
    return [*whole, head], rest[len(head) :]
