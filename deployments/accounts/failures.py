"""Requests that fail while the server answers others, as observed by this process.

A resource that can't be read must not block everything else, so it is retried less and less often. A server counts as
failing only after several different requests failed in a row.
"""

import threading
from dataclasses import dataclass, field
from datetime import datetime

from django.utils import timezone

from deployments.client import errors
from deployments.models import HostingAccount
from deployments.timing import backoff, refusal_pause

LIST_PREFIX = "list of "
MAX_DIFFERENT_FAILURES = 3  # in a row; then the server as a whole is failing
_lock = threading.Lock()


@dataclass
class _Failure:
    since: datetime
    retry_at: datetime


@dataclass
class _Server:
    in_a_row: set[str] = field(default_factory=set)  # different requests that failed since the last response
    lists: dict[str, _Failure] = field(default_factory=dict)  # that can't be read, by name of the request


_servers: dict[tuple[int, int], _Server] = {}


def list_request(noun: str) -> str:
    """Return the name of the request for a list, such as "list of models"."""
    return f"{LIST_PREFIX}{noun}s"


def is_list(request: str) -> bool:
    """Return True if the request is for a list."""
    return request.startswith(LIST_PREFIX)


def add(account: HostingAccount, request: str, error: errors.MMSError) -> bool:
    """Record that `request` failed. Return True if the server as a whole is failing."""
    now = timezone.now()
    with _lock:
        server = _servers.setdefault(_key(account), _Server())
        if is_list(request):
            failure = server.lists.setdefault(request, _Failure(now, now))
            pause = refusal_pause if isinstance(error, errors.ForbiddenError) else backoff
            failure.retry_at = now + pause(failure.since, now)
        if len(server.in_a_row) < MAX_DIFFERENT_FAILURES:
            server.in_a_row.add(request)
        return not request or len(server.in_a_row) >= MAX_DIFFERENT_FAILURES


def clear(account: HostingAccount, request: str = "") -> None:
    """Record a response of the server, and that `request` succeeded."""
    with _lock:
        if server := _servers.get(_key(account)):
            server.in_a_row.clear()
            server.lists.pop(request, None)
            if not server.lists:
                del _servers[_key(account)]


def is_failing(account: HostingAccount, request: str) -> bool:
    """Return True if the list couldn't be read when it was last requested."""
    with _lock:
        server = _servers.get(_key(account))
        return server is not None and request in server.lists


def is_paused(account: HostingAccount, request: str) -> bool:
    """Return True if the list couldn't be read and isn't to be requested again yet."""
    with _lock:
        server = _servers.get(_key(account))
        failure = server.lists.get(request) if server else None
        return failure is not None and failure.retry_at > timezone.now()


def _key(account: HostingAccount) -> tuple[int, int]:
    """Return a key that changes with the account's address and credentials, since failures of old ones don't count."""
    return account.pk, hash((account.base_url, account.credentials))
