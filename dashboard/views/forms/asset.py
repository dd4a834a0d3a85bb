"""The form that adds an asset."""

from typing import Any

from django.http import HttpResponse
from django.shortcuts import redirect, render

from dashboard.access.guards import requires
from dashboard.access.permissions import Permission
from dashboard.actions import operations
from dashboard.audit.record import PREVIEW
from dashboard.forms import snippets
from dashboard.forms.resources.asset import AddAssetForm
from dashboard.http.request import Request
from dashboard.views.forms.submit import INVALID_FORM_STATUS, missing_fields
from dashboard.views.forms.uploads import initial_from_upload, upload_context
from deployments.models import HostingAccount


@requires(Permission.ADD_ASSET, previews=True)
def add_asset(request: Request, account: HostingAccount) -> HttpResponse:
    """Show the form, preview it (do=preview), or add the asset and redirect to it."""
    form = AddAssetForm(account, request.POST or None, initial=initial_from_upload(request))
    context: dict[str, Any] = {"form": form, **upload_context(request)}
    if request.POST.get("do") == PREVIEW:
        context["preview"] = (
            {"command": snippets.build_asset_snippet(form)} if form.is_valid() else missing_fields(form)
        )
        if request.htmx:
            return render(request, "_shared/_preview.html", {**context, "oob": True})
        return render(request, "assets/add_asset.html", context)
    if request.method == "POST" and form.is_valid():
        return redirect("get_asset", account.name, operations.add_asset(request, form).pk)
    return render(request, "assets/add_asset.html", context, status=INVALID_FORM_STATUS if form.is_bound else 200)
