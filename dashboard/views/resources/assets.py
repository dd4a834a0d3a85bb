"""Pages of assets: the list and one asset."""

from django.http import HttpResponse
from django.views.decorators.http import require_safe

from dashboard.access.guards import requires
from dashboard.access.permissions import Permission
from dashboard.catalog.detail import render_detail
from dashboard.catalog.listing import Listing, render_list
from dashboard.catalog.lists.assets import LIST
from dashboard.http.request import Request
from deployments.models import Asset, HostingAccount


@require_safe
@requires(Permission.SEE)
def list_assets(request: Request, account: HostingAccount) -> HttpResponse:
    """List the assets of the account."""
    return render_list(request, Listing(request, account, Asset.objects.filter(account=account), LIST))


@require_safe
@requires(Permission.SEE)
def get_asset(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    """Show one asset and the resources that use it."""
    return render_detail(request, account, Asset.objects.all(), pk)
