"""Operations: everything that people asked for, and one of them."""

from typing import Any
from uuid import UUID

from django.db.models import Q
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from dashboard.access.guards import requires
from dashboard.access.permissions import Permission
from dashboard.catalog.badges import with_badges
from dashboard.catalog.lineage import lineage
from dashboard.catalog.listing import Choice, Column, Listing, Shape, render_list
from dashboard.forms import snippets
from dashboard.http.request import Request
from deployments.models import HostingAccount, Operation
from deployments.models.operation import OPEN, Kind, State
from deployments.operations import submit

ABOUT = ("model", "manifest", "image", "service")
SHAPE = Shape(
    folder="operations",
    columns=(
        Column("kind", "Operation", ("kind",)),
        Column("state", "State", ("state",)),
        Column("by", "By", ("requested_by",), css="minor"),
        Column("took", "Took", css="num minor"),
        Column("added", "Requested", ("requested_at",), css="num"),
    ),
    search=("kind", "requested_by", "error_message", "model__name", "service__name", "image__description"),
    exact={"kind": Kind.choices},
    states={
        "open": Choice("In flight", Q(state__in=sorted(OPEN))),
        "uncertain": Choice("Uncertain", Q(state=State.UNCERTAIN)),
        "succeeded": Choice("Succeeded", Q(state=State.SUCCEEDED)),
        "failed": Choice("Failed", Q(state=State.FAILED)),
        "canceled": Choice("Canceled", Q(state=State.CANCELED)),
    },
)


@require_safe
@requires(Permission.SEE)
def list_operations(request: Request, account: HostingAccount) -> HttpResponse:
    """All operations of the account, newest first."""
    rows = (
        Operation.objects.filter(account=account)
        .select_related(*ABOUT)
        .defer(
            "body",
            "error_details",
            "model__url",
            "manifest__asset_list",
            "manifest__properties",
            "service__scoring_key",
        )
    )
    return render_list(request, Listing(request, account, rows, SHAPE))


@require_safe
@requires(Permission.SEE)
def get_operation(request: Request, account: HostingAccount, pk: UUID) -> HttpResponse:
    """One operation: where it stands, the reason if it failed, and what can be done about it."""
    rows = Operation.objects.filter(account=account).select_related(*ABOUT, "retry_of")
    operation = get_object_or_404(rows.defer("service__scoring_key"), pk=pk)
    with_badges(account, [operation])
    target = request.htmx.target
    if target == f"operation-{pk}":
        return render(request, "operations/_row.html", {"row": operation})
    if target == "panel":
        return render(request, "operations/_panel.html", _facts(operation))
    page = {**_facts(operation), "command": snippets.of_operation(operation) if operation.body else None}
    return render(request, "operations/detail.html", page)


def _facts(operation: Operation) -> dict[str, Any]:
    resource = operation.resource
    if resource:
        with_badges(operation.account, [resource])
    return {
        "operation": operation,
        "resource": resource,
        "lineage": lineage(resource) if resource else [],
        "retries": with_badges(operation.account, operation.retries.defer("body", "error_details")),
        "failed": operation.state in {State.FAILED, State.CANCELED, State.UNCERTAIN},
        "needs_decision": submit.needs_decision(operation),
        "stopped": operation.state in {State.NOT_STARTED, State.RUNNING} and operation.next_poll_at is None,
    }
