"""Log lines of operations and services: fetched while somebody looks or something is in flight, kept in Redis."""

import logging
from collections.abc import Callable

from deployments import errors, live, volatile, wire
from deployments.client import LogText, MMSClient
from deployments.models import Operation, Service

log = logging.getLogger(__name__)
MAX_LINE = 4000  # characters
MOST_PARTS = 20  # read in one go; the rest has its turn a second later


def fetch_operation_log(operation: Operation, client: MMSClient, secrets: list[str], last: bool = False) -> None:
    """Append what is new in the operation's log. A log that cannot be read now is read later.

    `last`: the operation is over, so a line without end is complete, too.
    """
    key = live.operation_log_key(operation)
    _fetch(key, lambda after: client.get_operation_log(operation.mms_operation_id, after), secrets, last)


def fetch_service_log(service: Service, client: MMSClient) -> None:
    """Append what is new in the log of the service's newest revision."""
    key, mms_id = live.service_log_key(service), service.mms_id or ""
    revision = int(key.rpartition(":")[2]) or None
    _fetch(key, lambda after: client.get_service_log(mms_id, revision, after), [])


def _fetch(key: str, read: Callable[[int], LogText], secrets: list[str], last: bool = False) -> None:
    """Append what is new, unless another worker is at it: lines would come twice."""
    if not volatile.claim(key, seconds=60, fallback=False):
        return
    try:
        for _ in range(MOST_PARTS):
            mark = live.log_mark(key)
            # Redis is away, or the server has no logs, or there is no more to come.
            if mark is None or mark.reported is False or not _fetch_part(key, mark, read, secrets, last):
                return
    except (errors.NotFound, errors.NotOffered):
        live.append_log(key, [], 0, reported=False)
    except errors.MMSError as error:
        log.info("%s cannot be read now: %s", key, error)
    finally:
        volatile.release(key)


def _fetch_part(key: str, mark: live.LogMark, read: Callable[[int], LogText], secrets: list[str], last: bool) -> bool:
    """Append the next part; whether there was one."""
    part = read(mark.position)
    whole, rest = _lines(part.body)
    if last and rest:
        whole, rest = [*whole, rest], b""
    lines = [wire.redact(wire.text(line.decode("utf-8", "replace"), MAX_LINE), secrets) for line in whole]
    live.append_log(key, lines, part.position - len(rest), whole=last and not part.body)
    return bool(part.body) and (bool(lines) or last)


def _lines(body: bytes) -> tuple[list[bytes], bytes]:
    """The complete lines, and the beginning of one that is still being written (a very long one is cut here)."""
    *whole, rest = body.split(b"\n")
    return ([*whole, rest], b"") if len(rest) > MAX_LINE else (whole, rest)
