"""Logs that users are viewing, fetched every second."""

from collections.abc import Callable
from typing import Any

from deployments.accounts.availability import client_for, is_callable
from deployments.accounts.call_pool import CALL_POOL
from deployments.client.client import MMSClient
from deployments.live import events
from deployments.models import HostingAccount, Operation, Service
from deployments.operations.dispatch import max_calls
from deployments.resources import logs

MAX_LOG_THREADS = 2  # per account; the remaining threads are for operations


def follow_logs() -> None:
    """Start fetching new lines of the logs that users view, from servers that may be called."""
    watched = events.current_interests("log:")
    callable_accounts = HostingAccount.objects.filter(is_callable())
    services = [name.removeprefix("service:") for name in watched if name.startswith("service:")]
    services_to_read = Service.objects.filter(pk__in=services, mms_id__isnull=False, account__in=callable_accounts)
    for service in services_to_read.select_related("account"):
        _submit(service, logs.fetch_service_log)
    operations = [name.removeprefix("operation:") for name in watched if name.startswith("operation:")]
    operations_to_read = Operation.objects.filter(pk__in=operations, account__in=callable_accounts)
    for operation in operations_to_read.exclude(mms_operation_id="").select_related("account"):
        mark = events.log_mark(events.operation_log_key(operation))
        if mark is not None and not mark.is_complete:
            _submit(operation, _fetch_operation_log)


def _submit(row: Any, fetch: Callable[[Any, MMSClient], None]) -> None:
    CALL_POOL.submit(row.account_id, _fetch, row, fetch, limit=min(MAX_LOG_THREADS, max_calls(row.account)))


def _fetch_operation_log(operation: Operation, client: MMSClient) -> None:
    logs.fetch_operation_log(operation, client, last=not operation.is_open)


def _fetch(_: int, row: Any, fetch: Callable[[Any, MMSClient], None]) -> None:
    with client_for(row.account) as client:
        fetch(row, client)
