"""Create a manifest."""

from typing import Any

from django.http import HttpResponse
from django.urls import reverse

from dashboard.access.guards import requires
from dashboard.access.permissions import Permission
from dashboard.catalog.picker import numbers
from dashboard.forms.resources.manifest import NO_DRIVER, CreateManifestForm
from dashboard.http.request import Request
from dashboard.views.forms.submit import cloned, picker_rows, write
from deployments.models import HostingAccount, Manifest, Operation
from deployments.models.operation import Kind


@requires(Permission.CREATE_MANIFEST, previews=True)
def create_manifest(request: Request, account: HostingAccount) -> HttpResponse:
    if request.GET.get("part"):
        return picker_rows(request, CreateManifestForm(account, request.GET))
    form = CreateManifestForm(account, request.POST or None, initial=_initial(request, account))

    def done(operation: Operation) -> str:
        return reverse("get_manifest", args=[account.name, operation.manifest_id])

    return write(request, form, "manifests/create_manifest.html", done=done)


def _initial(request: Request, account: HostingAccount) -> dict[str, Any]:
    """From the operation or the manifest to clone, else from the links of model and asset pages (?model=3&asset=5)."""
    if body := cloned(request, account, Kind.CREATE_MANIFEST) or _body_of(account, request.GET.get("manifest", "")):
        return {**body, "driver": body.get("driver") or NO_DRIVER}
    picked = {"models": request.GET.getlist("model"), "assets": request.GET.getlist("asset")}
    return {name: pks for name, pks in picked.items() if pks}


def _body_of(account: HostingAccount, number: str) -> dict[str, Any]:
    """What was asked for when the manifest of this number was made; {} where it was made outside the dashboard."""
    manifest = Manifest.objects.filter(account=account, pk__in=numbers(number)).first()
    made = manifest.operations.filter(kind=Kind.CREATE_MANIFEST).order_by("requested_at").first() if manifest else None
    return made.body if made else {}
