"""Pages of one thing: state first, then the reason of a failure, where it comes from, facts, what happened to it."""

from collections.abc import Callable
from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render

from dashboard.catalog.badges import newest_operations, with_badges
from dashboard.catalog.lineage import NOUN, lineage
from dashboard.http.request import Request
from deployments.models import Asset, HostingAccount
from deployments.models.operation import State
from deployments.operations.submit import needs_decision

HISTORY = 10  # operations shown
NEEDS_WORDS = {State.FAILED, State.CANCELED, State.UNCERTAIN}
PARTS = {"panel": "_shared/_panel.html", "history": "_shared/_history.html"}


def render_detail(
    request: Request, account: HostingAccount, rows: QuerySet, pk: int, facts: Callable[[Any], dict[str, Any]]
) -> HttpResponse:
    """The page of the row `pk`; for htmx the part it asks for: the row in a list, the panel, or the history.

    `facts` gives what the noun's own templates need beyond the row.
    """
    row = get_object_or_404(rows, account=account, pk=pk)
    row.account = account
    noun, target = NOUN[type(row)], request.htmx.target
    if not isinstance(row, Asset):
        with_badges(account, [row])
    if target == f"{noun}-{pk}":
        return render(request, f"{noun}s/_row.html", {"row": row})
    shown = {"row": row, "noun": noun, "folder": f"{noun}s", **_templates(noun), **_story(row)}
    if target != "history":
        shown |= {"lineage": lineage(row), **facts(row)}
    return render(request, PARTS.get(target or "", f"{noun}s/detail.html"), shown)


def _templates(noun: str) -> dict[str, str]:
    """The parts of the page that are the noun's own."""
    return {
        "listing_name": f"list_{noun}s",
        "actions_template": f"{noun}s/_actions.html",
        "facts_template": f"{noun}s/_facts.html",
    }


def _story(row: Any) -> dict[str, Any]:
    """The operations on the row, and the newest if it needs words: failed, canceled or uncertain."""
    if isinstance(row, Asset):
        return {}
    history = newest_operations(row.account, row.operations.all(), HISTORY)
    newest = history[0] if history else None
    failure = newest if newest and newest.state in NEEDS_WORDS else None
    return {"history": history, "failure": failure, "needs_decision": bool(failure and needs_decision(failure))}
