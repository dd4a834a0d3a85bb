"""Pages of registered models: the list and one version of a model."""

from typing import Any

from django.http import HttpResponse
from django.views.decorators.http import require_safe

from dashboard.access.guards import requires
from dashboard.access.permissions import Permission
from dashboard.catalog.badges import with_badges
from dashboard.catalog.detail import render_detail
from dashboard.catalog.listing import Listing, render_list
from dashboard.catalog.lists.models import LIST
from dashboard.http.request import Request
from deployments.live.badges import list_trouble
from deployments.models import HostingAccount, RegisteredModel

MAX_VERSIONS = 8  # other versions shown on the page of a model


@require_safe
@requires(Permission.SEE)
def list_models(request: Request, account: HostingAccount) -> HttpResponse:
    """List the models of the account, one row per version."""
    rows = RegisteredModel.objects.filter(account=account).defer("url", "mime_type")
    listing = Listing(request, account, rows, LIST)
    return render_list(request, listing, seen_at=account.models_seen_at, list_trouble=list_trouble(account, "model"))


@require_safe
@requires(Permission.SEE)
def get_model(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    """Show one version of a model, its uses, and the other versions."""
    return render_detail(request, account, RegisteredModel.objects.all(), pk, _versions)


def _versions(model: RegisteredModel) -> dict[str, Any]:
    """Return the other versions of the model, newest first; as `newer` the newest one, if this version is older."""
    rows = RegisteredModel.objects.filter(account=model.account, name=model.name, vanished_at=None)
    others = with_badges(model.account, rows.exclude(pk=model.pk).order_by("-version")[:MAX_VERSIONS])
    newest = others[0] if others else None
    newer = newest and newest.version and model.version and newest.version > model.version
    return {"versions": others, "newer": newest if newer else None}
