"""Pages of services: the list and one service."""

from datetime import datetime
from typing import Any

from django.http import HttpResponse
from django.utils.dateparse import parse_datetime
from django.views.decorators.http import require_safe

from dashboard.access.guards import requires
from dashboard.access.permissions import Permission
from dashboard.catalog.detail import render_detail
from dashboard.catalog.listing import Listing, render_list
from dashboard.catalog.lists.services import LIST, services_with_models
from dashboard.http.request import Request
from deployments.live.badges import list_trouble
from deployments.models import HostingAccount, Image, RegisteredModel, Service


@require_safe
@requires(Permission.SEE)
def list_services(request: Request, account: HostingAccount) -> HttpResponse:
    """List the services of the account and the models that each serves."""
    rows = services_with_models().filter(account=account)
    listing = Listing(request, account, rows, LIST)
    return render_list(
        request, listing, seen_at=account.services_seen_at, list_trouble=list_trouble(account, "service")
    )


@require_safe
@requires(Permission.SEE)
def get_service(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    """Show one service: its health, image, revisions, and how to call it."""
    return render_detail(request, account, services_with_models(), pk, _facts)


def _facts(service: Service) -> dict[str, Any]:
    return {"revisions": _revisions(service), "newer": _newer_models(service)}


def _revisions(service: Service) -> list[dict[str, Any]]:
    """Return the revisions that the server reports, newest first, each with its image if the dashboard has it."""
    ids = {revision.get("image_id") for revision in service.revisions}
    images = {image.mms_id: image for image in Image.objects.filter(account=service.account, mms_id__in=ids)}
    return [
        {
            **revision,
            "image": images.get(revision.get("image_id")),
            "since": _parse_time(revision.get("activated_at") or revision.get("created_at")),
        }
        for revision in service.revisions
    ]


def _parse_time(text: Any) -> datetime | None:
    """Return the time, or None if `text` isn't a time with a time zone."""
    try:
        parsed = parse_datetime(text or "")
    except ValueError:
        return None
    return parsed if parsed and parsed.tzinfo else None


def _newer_models(service: Service) -> list[RegisteredModel]:
    """Return the newest version of each served model of which the service serves an older version."""
    served = service.image.manifest.models.all() if service.image and service.image.manifest else []
    versions = {model.name: model.version or 0 for model in served}
    newest = RegisteredModel.objects.filter(account=service.account, name__in=versions, vanished_at=None)
    newest_by_name = {
        model.name: model for model in newest.exclude(mms_id=None).only("name", "version").order_by("version")
    }
    return [model for name, model in newest_by_name.items() if (model.version or 0) > versions[name]]
