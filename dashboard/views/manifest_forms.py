"""Create a manifest."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from dashboard.access import requires
from dashboard.forms.manifest import NO_DRIVER, CreateManifestForm
from dashboard.models import Role
from dashboard.views.writing import cloned, picker_rows, write
from deployments.models import HostingAccount, Operation


@requires(Role.SCIENTIST)
def create_manifest(request: HttpRequest, account: HostingAccount) -> HttpResponse:
    if request.GET.get("part"):
        return picker_rows(request, CreateManifestForm(account, request.GET))
    form = CreateManifestForm(account, request.POST or None, initial=_initial(request, account))

    def done(operation: Operation) -> str:
        return reverse("get_manifest", args=[account.name, operation.manifest_id])

    return write(request, form, "manifests/create_manifest.html", done=done)


def _initial(request: HttpRequest, account: HostingAccount) -> dict[str, Any]:
    """From the operation to clone, else from the links of model and asset pages (?model=3&asset=5)."""
    if body := cloned(request, account, "create_manifest"):
        return {**body, "driver": body.get("driver") or NO_DRIVER}
    picked = {"models": request.GET.getlist("model"), "assets": request.GET.getlist("asset")}
    return {name: pks for name, pks in picked.items() if pks}
