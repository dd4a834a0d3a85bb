"""The form that creates a manifest."""

from typing import Any

from django.http import HttpResponse
from django.urls import reverse

from dashboard.access.guards import requires
from dashboard.access.permissions import Permission
from dashboard.catalog.picker import parse_pks
from dashboard.forms.resources.manifest import NO_DRIVER, CreateManifestForm
from dashboard.http.request import Request
from dashboard.views.forms.submit import handle_operation_form, initial_from_clone, render_picker_rows
from deployments.models import HostingAccount, Manifest, Operation
from deployments.models.operation import Kind


@requires(Permission.CREATE_MANIFEST, previews=True)
def create_manifest(request: Request, account: HostingAccount) -> HttpResponse:
    """Show the form, a part of its pickers (?part=), or a preview; on POST, request the manifest."""
    if request.GET.get("part"):
        return render_picker_rows(request, CreateManifestForm(account, request.GET))
    form = CreateManifestForm(account, request.POST or None, initial=_initial(request, account))

    def success_url(operation: Operation) -> str:
        return reverse("get_manifest", args=[account.name, operation.manifest_id])

    return handle_operation_form(request, form, "manifests/create_manifest.html", success_url=success_url)


def _initial(request: Request, account: HostingAccount) -> dict[str, Any]:
    """Return the values to start with, from the operation or manifest to clone, or from `?model=3&asset=5`."""
    if body := initial_from_clone(request, account, Kind.CREATE_MANIFEST) or _body_of_manifest(
        account, request.GET.get("manifest", "")
    ):
        return {**body, "driver": body.get("driver") or NO_DRIVER}
    picked = {"models": request.GET.getlist("model"), "assets": request.GET.getlist("asset")}
    return {name: pks for name, pks in picked.items() if pks}


def _body_of_manifest(account: HostingAccount, pk: str) -> dict[str, Any]:
    """Return the request that created the manifest `pk`; {} if it was created outside the dashboard."""
    manifest = Manifest.objects.filter(account=account, pk__in=parse_pks(pk)).first()
    creation = (
        manifest.operations.filter(kind=Kind.CREATE_MANIFEST).order_by("requested_at").first() if manifest else None
    )
    return creation.body if creation else {}
