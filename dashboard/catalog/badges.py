"""Rows as pages show them: each with its account and its badge."""

from collections.abc import Iterable
from typing import Any

from django.db.models import QuerySet

from deployments.live import events
from deployments.models import HostingAccount, Operation


def with_badges(account: HostingAccount, rows: Iterable[Any]) -> list[Any]:
    """The rows (of one class, all of `account`) with their badges: one query for the rows, one for all the badges."""
    found = list(rows)
    for row in found:
        row.account = account
    for row, badge in zip(found, events.badges_of(found), strict=True):
        row.badge = badge
    return found


def newest_operations(account: HostingAccount, rows: QuerySet[Operation], limit: int) -> list[Operation]:
    """The operations asked for last, with badges and with what they are about."""
    rows = rows.select_related("model", "manifest", "image", "service").defer(
        "body", "error_details", "model__url", "manifest__asset_list", "manifest__properties", "service__scoring_key"
    )
    return with_badges(account, rows.order_by("-requested_at")[:limit])
