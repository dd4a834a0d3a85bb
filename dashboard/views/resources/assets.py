"""Assets, the files that manifests use: the list and one asset. The dashboard alone knows them."""

from typing import Any

from django.http import HttpResponse
from django.views.decorators.http import require_safe

from dashboard.access.guards import requires
from dashboard.access.permissions import Permission
from dashboard.catalog.detail import render_detail
from dashboard.catalog.listing import Column, Listing, Shape, render_list
from dashboard.http.request import Request
from deployments.models import Asset, HostingAccount

SHAPE = Shape(
    folder="assets",
    columns=(
        Column("name", "Name", ("name",)),
        Column("type", "Type", ("mime_type",), css="minor"),
        Column("source", "Source"),
        Column("by", "By", ("created_by",), css="minor"),
        Column("added", "Added", ("added_at",), css="num"),
    ),
    search=("name", "mime_type"),
    badges=False,
)


@require_safe
@requires(Permission.SEE)
def list_assets(request: Request, account: HostingAccount) -> HttpResponse:
    """All assets of the account."""
    return render_list(request, Listing(request, account, Asset.objects.filter(account=account), SHAPE))


@require_safe
@requires(Permission.SEE)
def get_asset(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    """One asset and what uses it."""
    return render_detail(request, account, Asset.objects.all(), pk, _nothing_more)


def _nothing_more(asset: Asset) -> dict[str, Any]:
    return {}
