"""Add an asset."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from dashboard import audit
from dashboard.access import requires
from dashboard.forms.asset import AddAssetForm
from dashboard.permissions import Permission
from dashboard.views.uploading import upload_context, uploaded
from dashboard.views.writing import INVALID
from deployments import operations
from deployments.models import HostingAccount


@requires(Permission.ADD_ASSET)
def add_asset(request: HttpRequest, account: HostingAccount) -> HttpResponse:
    form = AddAssetForm(account, request.POST or None, initial=uploaded(request))
    if request.method == "POST" and form.is_valid():
        asset = form.save(request.user.get_username())
        after = {"url": operations.without_keys(asset.url), "mime_type": asset.mime_type, "unpack": asset.unpack}
        audit.note(request, target=asset, after=after)
        return redirect("get_asset", account.name, asset.pk)
    page = {"form": form, **upload_context(request)}
    return render(request, "assets/add_asset.html", page, status=INVALID if form.is_bound else 200)
