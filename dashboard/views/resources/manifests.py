"""Pages of manifests: the list and one manifest."""

import json
from typing import Any

from django.http import HttpResponse
from django.views.decorators.http import require_safe

from dashboard.access.guards import requires
from dashboard.access.permissions import Permission
from dashboard.catalog.detail import render_detail
from dashboard.catalog.listing import Listing, render_list
from dashboard.catalog.lists.manifests import LIST, manifests_with_models
from dashboard.http.request import Request
from deployments.live.badges import list_trouble
from deployments.models import HostingAccount, Manifest
from deployments.operations import submit


@require_safe
@requires(Permission.SEE)
def list_manifests(request: Request, account: HostingAccount) -> HttpResponse:
    """List the manifests of the account with their models."""
    rows = manifests_with_models().filter(account=account).defer("asset_list", "properties", "model_ids")
    listing = Listing(request, account, rows, LIST)
    return render_list(
        request, listing, seen_at=account.manifests_seen_at, list_trouble=list_trouble(account, "manifest")
    )


@require_safe
@requires(Permission.SEE)
def get_manifest(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    """Show one manifest, its contents, and its JSON."""
    return render_detail(request, account, manifests_with_models(), pk, _contents)


def _contents(manifest: Manifest) -> dict[str, Any]:
    """Return the assets, each with its row if there is one, and the JSON of the manifest."""
    known = {asset.name: asset for asset in manifest.assets.all()}
    return {
        "parts": [{**item, "row": known.get(item["id"])} for item in manifest.asset_list],
        "as_json": json.dumps(submit.manifest_as_json(manifest), indent=2, ensure_ascii=False),
    }
