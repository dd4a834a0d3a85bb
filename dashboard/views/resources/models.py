"""Registered models: the list and one model."""

from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.http import HttpResponse
from django.views.decorators.http import require_safe

from dashboard.access.guards import requires
from dashboard.access.permissions import Permission
from dashboard.catalog import filters
from dashboard.catalog.badges import with_badges
from dashboard.catalog.detail import render_detail
from dashboard.catalog.listing import Choice, Column, Listing, Shape, render_list
from dashboard.http.request import Request
from deployments.models import HostingAccount, RegisteredModel

VERSIONS = 8  # other versions shown on a model's page
NEWER = RegisteredModel.objects.filter(
    account=OuterRef("account"), name=OuterRef("name"), version__gt=OuterRef("version"), vanished_at=None
)
SHAPE = Shape(
    folder="models",
    columns=(
        Column("name", "Name", ("name", "version")),
        Column("version", "Version", ("version",), css="num"),
        Column("state", "State"),
        Column("tags", "Tags", css="minor"),
        Column("by", "By", ("created_by",), css="minor"),
        Column("added", "Registered", ("added_at",), css="num"),
    ),
    search=("name", "description", "tags"),
    states=filters.of_mirrored("model"),
    toggles={"newest": Choice("Newest versions only", ~Q(Exists(NEWER)))},
)


@require_safe
@requires(Permission.SEE)
def list_models(request: Request, account: HostingAccount) -> HttpResponse:
    """All models of the account, one row per version."""
    rows = RegisteredModel.objects.filter(account=account).defer("url", "mime_type")
    return render_list(request, Listing(request, account, rows, SHAPE), seen_at=account.models_seen_at)


@require_safe
@requires(Permission.SEE)
def get_model(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    """One version of a model, where it is used, and the other versions."""
    return render_detail(request, account, RegisteredModel.objects.all(), pk, _versions)


def _versions(model: RegisteredModel) -> dict[str, Any]:
    """The model's other versions, newest first; `newer` is the newest of all, if that is another one."""
    rows: QuerySet = RegisteredModel.objects.filter(account=model.account, name=model.name, vanished_at=None)
    others = with_badges(model.account, rows.exclude(pk=model.pk).order_by("-version")[:VERSIONS])
    newest = others[0] if others else None
    newer = newest and newest.version and model.version and newest.version > model.version
    return {"versions": others, "newer": newest if newer else None}
