"""Logs that somebody looks at, fetched every second while they do."""

from collections.abc import Callable
from typing import Any

from deployments import live, logs
from deployments.accounts import client_for
from deployments.client import MMSClient
from deployments.dispatch import CALLS
from deployments.matching import secrets_of
from deployments.models import Operation, Service


def follow_logs() -> None:
    """Start fetching what is new in the logs that are being looked at."""
    watched = live.interested("log:")
    services = [name.removeprefix("service:") for name in watched if name.startswith("service:")]
    for service in Service.objects.filter(pk__in=services, mms_id__isnull=False).select_related("account"):
        CALLS.submit(service.account_id, _follow, service, logs.fetch_service_log)
    operations = [name.removeprefix("operation:") for name in watched if name.startswith("operation:")]
    asked = Operation.objects.filter(pk__in=operations).exclude(mms_operation_id="").select_related("account")
    for operation in asked:
        mark = live.log_mark(live.operation_log_key(operation))
        if mark is not None and not mark.whole:
            CALLS.submit(operation.account_id, _follow, operation, _fetch_operation_log)


def _fetch_operation_log(operation: Operation, client: MMSClient) -> None:
    logs.fetch_operation_log(operation, client, secrets_of(operation), last=not operation.is_open)


def _follow(account_id: int, row: Any, fetch: Callable[[Any, MMSClient], None]) -> None:
    with client_for(row.account) as client:
        fetch(row, client)
