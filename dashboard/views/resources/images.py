"""Pages of images: the list and one image."""

from typing import Any

from django.http import HttpResponse
from django.views.decorators.http import require_safe

from dashboard.access.guards import requires
from dashboard.access.permissions import Permission
from dashboard.catalog.detail import render_detail
from dashboard.catalog.listing import Listing, render_list
from dashboard.catalog.lists.images import LIST, images_with_models
from dashboard.http.request import Request
from deployments.live.badges import list_trouble
from deployments.models import HostingAccount, Image
from deployments.models.operation import Kind


@require_safe
@requires(Permission.SEE)
def list_images(request: Request, account: HostingAccount) -> HttpResponse:
    """List the images of the account with their models."""
    rows = images_with_models().filter(account=account)
    listing = Listing(request, account, rows, LIST)
    return render_list(request, listing, seen_at=account.images_seen_at, list_trouble=list_trouble(account, "image"))


@require_safe
@requires(Permission.SEE)
def get_image(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    """Show one image, its build, and the services that run it."""
    return render_detail(request, account, images_with_models(), pk, _build)


def _build(image: Image) -> dict[str, Any]:
    """Return the newest build of the image; None if it was created outside the dashboard."""
    builds = image.operations.filter(kind=Kind.CREATE_IMAGE).order_by("-requested_at")
    return {"build": builds.defer("body", "error_details").first()}
