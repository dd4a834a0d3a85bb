"""Pages of operations: the list and one operation."""

from typing import Any
from uuid import UUID

from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from dashboard.access.guards import requires
from dashboard.access.permissions import Permission
from dashboard.catalog.badges import with_badges
from dashboard.catalog.lineage import lineage
from dashboard.catalog.listing import Listing, render_list
from dashboard.catalog.lists.operations import LIST, SUBJECTS, operations_with_subjects
from dashboard.forms import snippets
from dashboard.http.request import Request
from deployments.models import HostingAccount, Operation
from deployments.models.operation import State
from deployments.operations import submit


@require_safe
@requires(Permission.SEE)
def list_operations(request: Request, account: HostingAccount) -> HttpResponse:
    """List the operations of the account, newest first."""
    rows = operations_with_subjects().filter(account=account)
    rows = rows.defer("body", "error_details", "model__url", "manifest__asset_list", "manifest__properties")
    return render_list(request, Listing(request, account, rows, LIST))


@require_safe
@requires(Permission.SEE)
def get_operation(request: Request, account: HostingAccount, pk: UUID) -> HttpResponse:
    """Show one operation with its state, the reason for a failure, and the available actions."""
    rows = Operation.objects.filter(account=account).select_related(*SUBJECTS, "retry_of")
    operation = get_object_or_404(rows.defer("service__scoring_key"), pk=pk)
    with_badges(account, [operation])
    target = request.htmx.target
    if target == f"operation-{pk}":
        return render(request, "operations/_row.html", {"row": operation})
    if target == "panel":
        return render(request, "operations/_panel.html", _facts(operation))
    page = {**_facts(operation), "command": snippets.build_operation_snippet(operation) if operation.body else None}
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
