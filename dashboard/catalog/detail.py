"""Detail pages of resources: state, reason of a failure, lineage, facts and history."""

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

HISTORY_SIZE = 10  # operations
UNSUCCESSFUL = {State.FAILED, State.CANCELED, State.UNCERTAIN}
PARTS = {"panel": "_shared/_panel.html", "history": "_shared/_history.html"}


def render_detail(
    request: Request,
    account: HostingAccount,
    rows: QuerySet[Any],
    pk: int,
    facts: Callable[[Any], dict[str, Any]] | None = None,
) -> HttpResponse:
    """Render the page of the row `pk`, or the part that htmx requests: a list's row, the panel or the history.

    `facts` returns the context of the noun's own templates. Raise Http404 if the account has no such row.
    """
    row = get_object_or_404(rows, account=account, pk=pk)
    row.account = account
    noun, target = NOUN[type(row)], request.htmx.target
    if not isinstance(row, Asset):
        with_badges(account, [row])
    if target == f"{noun}-{pk}":
        return render(request, f"{noun}s/_row.html", {"row": row})
    context = {"row": row, "noun": noun, "folder": f"{noun}s", **_templates(noun), **_history(row)}
    if target != "history":
        context |= {"lineage": lineage(row), **(facts(row) if facts else {})}
    return render(request, PARTS.get(target or "", f"{noun}s/detail.html"), context)


def _templates(noun: str) -> dict[str, str]:
    """Return the names of the noun's own list and templates."""
    return {
        "listing_name": f"list_{noun}s",
        "actions_template": f"{noun}s/_actions.html",
        "facts_template": f"{noun}s/_facts.html",
    }


def _history(row: Any) -> dict[str, Any]:
    """Return the newest operations on the row; the newest of all also as `failure` if it did not succeed."""
    if isinstance(row, Asset):
        return {}
    history = newest_operations(row.account, row.operations.all(), HISTORY_SIZE)
    newest = history[0] if history else None
    failure = newest if newest and newest.state in UNSUCCESSFUL else None
    return {"history": history, "failure": failure, "needs_decision": bool(failure and needs_decision(failure))}
