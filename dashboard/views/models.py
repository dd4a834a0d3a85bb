"""Registered models: the list and one model."""

from django.db.models import Exists, OuterRef, QuerySet
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from dashboard import states
from dashboard.access import requires
from dashboard.listing import Column, Listing, Shape, render_list
from dashboard.models import Role
from deployments.models import HostingAccount, RegisteredModel

NEWER = RegisteredModel.objects.filter(
    account=OuterRef("account"), name=OuterRef("name"), version__gt=OuterRef("version"), vanished_at__isnull=True
)
SHAPE = Shape(
    folder="models",
    columns=(
        Column("name", "Name", ("name", "version")),
        Column("version", "Version", ("version",), css="num"),
        Column("state", "State"),
        Column("tags", "Tags"),
        Column("by", "By", ("created_by",)),
        Column("added", "Registered", ("added_at",), css="num"),
    ),
    search=("name", "description", "tags"),
    states=states.of_mirrored("model"),
)


@require_safe
@requires(Role.VIEWER)
def list_models(request: HttpRequest, account: HostingAccount) -> HttpResponse:
    """All models of the account, one row per version."""
    newest = request.GET.get("newest") == "1"
    return render_list(request, Listing(request, account, _rows(account, newest), SHAPE), newest=newest)


def _rows(account: HostingAccount, newest: bool) -> QuerySet:
    rows = RegisteredModel.objects.filter(account=account).defer("url", "mime_type")
    return rows.filter(~Exists(NEWER)) if newest else rows
