"""Pages of clusters: list, add, change, test, delete."""

from typing import Any

from django.contrib import messages
from django.db.models import Count, Q
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_POST, require_safe

from dashboard.access.guards import requires
from dashboard.access.permissions import Permission
from dashboard.actions import settings
from dashboard.forms.settings.cluster import ClusterForm
from dashboard.http.request import Request
from dashboard.views.forms.submit import INVALID_FORM_STATUS
from dashboard.views.settings.pages import handle_settings_form, render_connection_test
from deployments.accounts import usage
from deployments.models import Cluster, HostingAccount

TEMPLATE = "settings/change_cluster.html"


@require_safe
@requires(Permission.CHANGE_CLUSTER)
def list_clusters(request: Request, account: HostingAccount) -> HttpResponse:
    """List the clusters of the account, each with the number of services that run on it."""
    present = Count("services", Q(services__vanished_at=None))
    rows = Cluster.objects.filter(account=account).defer(*Cluster.SECRETS).annotate(uses=present)
    return render(request, "settings/list_clusters.html", {"rows": rows})


@sensitive_post_parameters()
@requires(Permission.CHANGE_CLUSTER)
def add_cluster(request: Request, account: HostingAccount) -> HttpResponse:
    """Show the form; on POST, add the cluster."""
    form = ClusterForm(request.POST or None, instance=Cluster(account=account))
    return handle_settings_form(request, form, TEMPLATE, success_url_name="list_clusters")


@sensitive_post_parameters()
@requires(Permission.CHANGE_CLUSTER)
def change_cluster(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    """Show the form; on POST, change the cluster."""
    row = get_object_or_404(Cluster, account=account, pk=pk)
    form = ClusterForm(request.POST or None, instance=row)
    return handle_settings_form(request, form, TEMPLATE, success_url_name="list_clusters", context=_page(row))


@require_POST
@sensitive_post_parameters()
@requires(Permission.CHANGE_CLUSTER, changes=False)
@sensitive_variables("form", "row")
def test_cluster(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    """Test the submitted settings, with the stored kubeconfig unless another one was entered. `pk` 0: a new cluster."""
    row = get_object_or_404(Cluster, account=account, pk=pk) if pk else Cluster(account=account)
    page = _page(row) if pk else {}
    form = ClusterForm(request.POST, instance=row)
    result = settings.test_cluster(form.instance) if form.is_valid() else None
    return render_connection_test(request, form, result, TEMPLATE, page)


@requires(Permission.CHANGE_CLUSTER)
def delete_cluster(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    """Ask for confirmation; on POST, delete the cluster from the dashboard."""
    row = get_object_or_404(Cluster.objects.defer(*Cluster.SECRETS), account=account, pk=pk)
    under_way = usage.operations_with_cluster(row)
    if request.method == "POST" and settings.delete_cluster(request, row):
        messages.success(request, f"Deleted the cluster “{row.name}” from the dashboard. Its services keep running.")
        return redirect("list_clusters", account.name)
    page = {
        "row": row,
        "services": list(row.services.filter(vanished_at=None).defer("scoring_key")[:5]),
        "count": row.services.filter(vanished_at=None).count(),
        "under_way": list(under_way[:5]),
    }
    return render(
        request, "settings/delete_cluster.html", page, status=INVALID_FORM_STATUS if request.method == "POST" else 200
    )


def _page(row: Cluster) -> dict[str, Any]:
    return {"row": row, "name": row.name, "under_way": list(usage.operations_with_cluster(row)[:5])}
