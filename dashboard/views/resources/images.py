"""Images: the list and one image."""

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
from dashboard.views.resources.manifests import NAMES_OF_MODELS
from deployments.models import HostingAccount, Image
from deployments.models.operation import Kind

SHAPE = Shape(
    folder="images",
    columns=(
        Column("name", "Image", ("description",)),
        Column("state", "State"),
        Column("models", "Models"),
        Column("registry", "Registry", ("registry__name", "registry_location"), css="minor"),
        Column("by", "By", ("created_by",), css="minor"),
        Column("added", "Requested", ("added_at",), css="num"),
    ),
    search=("description", "registry__name", "digest", "mms_id"),
    states=filters.of_mirrored("image"),
)


@require_safe
@requires(Permission.SEE)
def list_images(request: Request, account: HostingAccount) -> HttpResponse:
    """All images of the account with the models inside."""
    rows = with_models().filter(account=account)
    return render_list(request, Listing(request, account, rows, SHAPE), seen_at=account.images_seen_at)


@require_safe
@requires(Permission.SEE)
def get_image(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    """One image, how it was built, and what runs it."""
    return render_detail(request, account, with_models(), pk, _build)


def with_models() -> QuerySet:
    rows = Image.objects.select_related("manifest", "registry").defer(
        "manifest__asset_list", "manifest__properties", "registry__password"
    )
    return rows.prefetch_related(Prefetch("manifest__models", NAMES_OF_MODELS))


def _build(image: Image) -> dict[str, Any]:
    """The image's newest build, None for an image made outside the dashboard."""
    builds = image.operations.filter(kind=Kind.CREATE_IMAGE).order_by("-requested_at")
    return {"build": builds.defer("body", "error_details").first()}
