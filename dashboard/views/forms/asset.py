"""Add an asset."""

from typing import Any

from django.http import HttpResponse
from django.shortcuts import redirect, render

from dashboard.access.guards import requires
from dashboard.access.permissions import Permission
from dashboard.audit.record import PREVIEW, note_details
from dashboard.forms import snippets
from dashboard.forms.resources.asset import AddAssetForm
from dashboard.http.request import Request
from dashboard.views.forms.submit import INVALID, missing
from dashboard.views.forms.uploads import upload_context, uploaded
from deployments.models import Asset, HostingAccount
from deployments.operations import submit


@requires(Permission.ADD_ASSET, previews=True)
def add_asset(request: Request, account: HostingAccount) -> HttpResponse:
    form = AddAssetForm(account, request.POST or None, initial=uploaded(request))
    page: dict[str, Any] = {"form": form, **upload_context(request)}
    if request.POST.get("do") == PREVIEW:
        page["preview"] = {"command": snippets.of_asset(form)} if form.is_valid() else missing(form)
        if request.htmx:
            return render(request, "_shared/_preview.html", {**page, "oob": True})
        return render(request, "assets/add_asset.html", page)
    if request.method == "POST" and form.is_valid():
        return redirect("get_asset", account.name, add(request, form).pk)
    return render(request, "assets/add_asset.html", page, status=INVALID if form.is_bound else 200)


def add(request: Request, form: AddAssetForm) -> Asset:
    """The asset of a valid form, stored."""
    asset = form.save(request.user.get_username())
    after = {"url": submit.redact_keys(asset.url), "mime_type": asset.mime_type, "unpack": asset.unpack}
    note_details(request, target=asset, after=after)
    return asset
