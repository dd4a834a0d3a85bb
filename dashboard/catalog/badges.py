"""Adding badges to rows, and rendering badges as HTML."""

from collections.abc import Iterable
from typing import Any

from django.db.models import QuerySet
from django.template.loader import render_to_string

from deployments.live import events
from deployments.live.badges import Badge
from deployments.models import HostingAccount, Operation

BADGE_TEMPLATE = "_shared/_badge.html"


def with_badges(account: HostingAccount, rows: Iterable[Any]) -> list[Any]:
    """Return the rows with `account` and `badge` set, using one query for the rows and one for all badges.

    The rows must be of one class and belong to `account`.
    """
    result = list(rows)
    for row in result:
        row.account = account
    for row, badge in zip(result, events.badges_of(result), strict=True):
        row.badge = badge
    return result


def newest_operations(account: HostingAccount, rows: QuerySet[Operation], limit: int) -> list[Operation]:
    """Return the `limit` operations requested last, with badges and the resources that they change."""
    rows = rows.select_related("model", "manifest", "image", "service").defer(
        "body", "error_details", "model__url", "manifest__asset_list", "manifest__properties", "service__scoring_key"
    )
    return with_badges(account, rows.order_by("-requested_at")[:limit])


def render_badge(badge: Badge) -> str:
    """Return the HTML of a badge."""
    return render_to_string(BADGE_TEMPLATE, {"badge": badge})
