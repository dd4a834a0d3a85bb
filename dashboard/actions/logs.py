"""Read logs of operations and services, from a position to the end."""

import re
from dataclasses import replace
from urllib.parse import quote

from deployments.accounts.availability import client_for, is_callable
from deployments.client.client import MMSClient
from deployments.live import events
from deployments.models import HostingAccount, Operation, Service
from deployments.resources import logs

FIRST_READ_SECONDS = 3.0  # for the lines that a first request waits for
PLAIN_TEXT = "text/plain; charset=utf-8"
MAX_ERROR_CHARS = 300  # of the error in a header
POSITION = re.compile(r"\d{1,20}(-\d{1,20})?", re.ASCII)


def follow_service_log(service: Service) -> None:
    """Have workers fetch the service's log from now on. If no client was, fetch its lines first."""
    is_new = not events.is_log_followed("service", service.pk)
    events.record_log_interest("service", service.pk)
    if is_new and service.mms_id and service.vanished_at is None and _is_callable(service.account_id):
        with _client(service.account) as client:
            logs.fetch_service_log(service, client, FIRST_READ_SECONDS)


def follow_operation_log(operation: Operation) -> None:
    """Have workers fetch the operation's log from now on. If no client was, fetch its lines first."""
    is_new = not events.is_log_followed("operation", operation.pk)
    events.record_log_interest("operation", operation.pk)
    mark = events.log_mark(events.operation_log_key(operation))
    is_missing = mark is not None and not mark.is_complete
    if is_new and is_missing and operation.mms_operation_id and _is_callable(operation.account_id):
        with _client(operation.account) as client:
            logs.fetch_operation_log(operation, client, last=not operation.is_open, seconds=FIRST_READ_SECONDS)


def _client(account: HostingAccount) -> MMSClient:
    return client_for(account, read_timeout=FIRST_READ_SECONDS, deadline=FIRST_READ_SECONDS)


def _is_callable(account_id: int) -> bool:
    return HostingAccount.objects.filter(is_callable(), pk=account_id).exists()


def read_log(key: str, after: str) -> events.LogPart:
    """Return all lines after the position `after`, or all lines of the log if `after` isn't a position."""
    part = events.read_log(key, after if POSITION.fullmatch(after) else "0")
    lines = part.lines
    while (rest := events.read_log(key, part.position)).lines:
        part = rest
        lines = [*lines, *rest.lines]
    return replace(part, lines=lines)


def log_text(part: events.LogPart) -> str:
    """Return the lines as text, each with a line break."""
    return "".join(f"{line}\n" for line in part.lines)


def log_headers(part: events.LogPart, has_ended: bool) -> dict[str, str]:
    """Return the headers that tell a client where to continue reading.

    `X-Log-End` is set when the log is complete. An ended log without any lines may still be fetched from the
    server, so it doesn't count as complete. `X-Log-Error` is the percent-encoded reason why no newer lines could be
    fetched.
    """
    headers = {"X-Log-Position": part.position, "Cache-Control": "no-store"}
    if part.error:
        headers["X-Log-Error"] = quote(part.error[:MAX_ERROR_CHARS])
    return {**headers, "X-Log-End": "1"} if has_ended and not part.lines and part.position != "0" else headers
