"""Services: the list and one service."""

from datetime import datetime
from typing import Any

from django.db.models import Prefetch, Q, QuerySet
from django.http import HttpResponse
from django.utils.dateparse import parse_datetime
from django.views.decorators.http import require_safe

from dashboard.access.guards import requires
from dashboard.access.permissions import Permission
from dashboard.catalog import filters
from dashboard.catalog.detail import render_detail
from dashboard.catalog.listing import Choice, Column, Listing, Shape, render_list
from dashboard.http.request import Request
from dashboard.views.resources.manifests import NAMES_OF_MODELS
from deployments.models import HostingAccount, Image, RegisteredModel, Service

SHAPE = Shape(
    folder="services",
    columns=(
        Column("name", "Service", ("name",)),
        Column("state", "State", ("health", "state")),
        Column("models", "Serves"),
        Column("image", "Image", ("image__description",), css="minor"),
        Column("by", "By", ("created_by",), css="minor"),
        Column("updated", "Updated", ("updated_at", "added_at"), css="num minor"),
        Column("added", "Created", ("added_at",), css="num minor"),
    ),
    search=("name", "description", "image__description", "mms_id"),
    states={
        "healthy": Choice("Healthy", Q(health="healthy")),
        "trouble": Choice("In trouble", Q(health__in=["unhealthy", "crashed"])),
        "open": Choice("In flight", filters.in_flight("service")),
        "failed": Choice("Last change failed", filters.last_operation_failed("service")),
        "gone": filters.GONE,
    },
)


@require_safe
@requires(Permission.SEE)
def list_services(request: Request, account: HostingAccount) -> HttpResponse:
    """All services of the account and the models each answers with."""
    rows = with_models().filter(account=account)
    return render_list(request, Listing(request, account, rows, SHAPE), seen_at=account.services_seen_at)


@require_safe
@requires(Permission.SEE)
def get_service(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    """One service: whether it answers, what it runs, its revisions, and how to call it."""
    return render_detail(request, account, with_models(), pk, _facts)


def with_models() -> QuerySet:
    """Services with their image and the models inside, without anything secret or long."""
    rows = Service.objects.select_related("image__manifest", "cluster").defer(
        "scoring_key", "cluster__kube_config", "image__manifest__asset_list", "image__manifest__properties"
    )
    return rows.prefetch_related(Prefetch("image__manifest__models", NAMES_OF_MODELS))


def _facts(service: Service) -> dict[str, Any]:
    return {"revisions": _revisions(service), "newer": _newer_models(service)}


def _revisions(service: Service) -> list[dict[str, Any]]:
    """The revisions as the server reports them, newest first, each with the image it runs if the mirror knows it."""
    ids = {revision.get("image_id") for revision in service.revisions}
    images = {image.mms_id: image for image in Image.objects.filter(account=service.account, mms_id__in=ids)}
    return [
        {
            **revision,
            "image": images.get(revision.get("image_id")),
            "since": _moment(revision.get("activated_at") or revision.get("created_at")),
        }
        for revision in service.revisions
    ]


def _moment(text: Any) -> datetime | None:
    try:
        found = parse_datetime(text or "")
    except ValueError:
        return None
    return found if found and found.tzinfo else None


def _newer_models(service: Service) -> list[RegisteredModel]:
    """The newest version of each model the service answers with, where it answers with an older one."""
    served = service.image.manifest.models.all() if service.image and service.image.manifest else []
    versions = {model.name: model.version or 0 for model in served}
    newest = RegisteredModel.objects.filter(account=service.account, name__in=versions, vanished_at=None)
    found = {model.name: model for model in newest.exclude(mms_id=None).only("name", "version").order_by("version")}
    return [model for name, model in found.items() if (model.version or 0) > versions[name]]
