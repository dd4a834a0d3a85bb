"""Manifests: the list and one manifest."""

import json
from typing import Any

from django.db.models import Prefetch, QuerySet
from django.http import HttpResponse
from django.views.decorators.http import require_safe

from dashboard.access.guards import requires
from dashboard.access.permissions import Permission
from dashboard.catalog import filters
from dashboard.catalog.detail import render_detail
from dashboard.catalog.listing import Column, Listing, Shape, render_list
from dashboard.http.request import Request
from deployments.models import HostingAccount, Manifest, RegisteredModel
from deployments.operations import submit

NAMES_OF_MODELS = RegisteredModel.objects.only("name", "version").order_by("name", "version")
SHAPE = Shape(
    folder="manifests",
    columns=(
        Column("name", "Manifest", ("description",)),
        Column("state", "State"),
        Column("models", "Models"),
        Column("runtime", "Runtime", ("runtime_type",), css="minor"),
        Column("by", "By", ("created_by",), css="minor"),
        Column("added", "Created", ("added_at",), css="num"),
    ),
    search=("description", "runtime_type", "driver_program", "mms_id"),
    states=filters.of_mirrored("manifest"),
)


@require_safe
@requires(Permission.SEE)
def list_manifests(request: Request, account: HostingAccount) -> HttpResponse:
    """All manifests of the account with their models."""
    rows = with_models().filter(account=account).defer("asset_list", "properties", "model_ids")
    return render_list(request, Listing(request, account, rows, SHAPE), seen_at=account.manifests_seen_at)


@require_safe
@requires(Permission.SEE)
def get_manifest(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    """One manifest, what it consists of, and the JSON that says so."""
    return render_detail(request, account, with_models(), pk, _contents)


def with_models() -> QuerySet:
    return Manifest.objects.prefetch_related(Prefetch("models", NAMES_OF_MODELS))


def _contents(manifest: Manifest) -> dict[str, Any]:
    known = {asset.name: asset for asset in manifest.assets.all()}
    return {
        "parts": [{**item, "row": known.get(item["id"])} for item in manifest.asset_list],
        "as_json": json.dumps(submit.manifest_as_json(manifest), indent=2, ensure_ascii=False),
    }
