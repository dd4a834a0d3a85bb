"""The clusters of an account: list, add, change, try, delete."""

from typing import Any

from django.contrib import messages
from django.db.models import Count, Q
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_POST, require_safe

from dashboard.access.guards import requires
from dashboard.access.permissions import Permission
from dashboard.audit.record import note_details
from dashboard.forms.settings.cluster import ClusterForm
from dashboard.http.request import Request
from dashboard.views.forms.submit import INVALID
from dashboard.views.settings.pages import show_trial, write_settings
from deployments.accounts import kubeconfig, usage
from deployments.accounts.connection_tests import ConnectionTestResult, with_timeout
from deployments.accounts.connection_tests.cluster import try_cluster
from deployments.models import Cluster, HostingAccount

TEMPLATE = "settings/change_cluster.html"


@require_safe
@requires(Permission.CHANGE_CLUSTER)
def list_clusters(request: Request, account: HostingAccount) -> HttpResponse:
    there = Count("services", Q(services__vanished_at=None))
    rows = Cluster.objects.filter(account=account).defer(*Cluster.SECRETS).annotate(uses=there)
    return render(request, "settings/list_clusters.html", {"rows": rows})


@sensitive_post_parameters()
@requires(Permission.CHANGE_CLUSTER)
def add_cluster(request: Request, account: HostingAccount) -> HttpResponse:
    form = ClusterForm(request.POST or None, instance=Cluster(account=account))
    return write_settings(request, form, TEMPLATE, done="list_clusters")


@sensitive_post_parameters()
@requires(Permission.CHANGE_CLUSTER)
def change_cluster(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    row = get_object_or_404(Cluster, account=account, pk=pk)
    form = ClusterForm(request.POST or None, instance=row)
    return write_settings(request, form, TEMPLATE, done="list_clusters", context=_page(row))


@require_POST
@sensitive_post_parameters()
@requires(Permission.CHANGE_CLUSTER, changes=False)
@sensitive_variables("form", "row")
def test_cluster(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    """Try what is typed, with the kubeconfig that is kept where none is typed. `pk` 0: it is not stored yet."""
    row = get_object_or_404(Cluster, account=account, pk=pk) if pk else Cluster(account=account)
    page = _page(row) if pk else {}
    form = ClusterForm(request.POST, instance=row)
    trial = with_timeout(lambda: attempt(form.instance)) if form.is_valid() else None
    return show_trial(request, form, trial, TEMPLATE, page)


def attempt(row: Cluster) -> ConnectionTestResult:
    """What comes of asking the cluster for its version."""
    try:
        return try_cluster(kubeconfig.parse(row.kube_config or ""))
    except kubeconfig.InvalidKubeconfigError as error:
        return ConnectionTestResult(False, f"The saved kubeconfig isn’t valid: {error}", "Paste another one.")


@requires(Permission.CHANGE_CLUSTER)
def delete_cluster(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    row = get_object_or_404(Cluster.objects.defer(*Cluster.SECRETS), account=account, pk=pk)
    under_way = usage.operations_with_cluster(row)
    if request.method == "POST" and delete(request, row):
        messages.success(request, f"Deleted the cluster “{row.name}” from the dashboard. Its services keep running.")
        return redirect("list_clusters", account.name)
    page = {
        "row": row,
        "services": list(row.services.filter(vanished_at=None).defer("scoring_key")[:5]),
        "count": row.services.filter(vanished_at=None).count(),
        "under_way": list(under_way[:5]),
    }
    return render(request, "settings/delete_cluster.html", page, status=INVALID if request.method == "POST" else 200)


def delete(request: Request, row: Cluster) -> bool:
    """Forget it here, unless an open operation uses it; whether that was done."""
    if usage.operations_with_cluster(row).exists():
        return False
    note_details(request, target=row.name, before={"production": row.production})
    row.delete()
    return True


def _page(row: Cluster) -> dict[str, Any]:
    return {"row": row, "name": row.name, "under_way": list(usage.operations_with_cluster(row)[:5])}
