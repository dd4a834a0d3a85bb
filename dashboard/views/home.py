"""The first page, and the overview of one account: what runs, what is in flight, what failed."""

from datetime import timedelta
from typing import Any

from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_safe

from dashboard.access.guards import requires, signed_in, visible_accounts
from dashboard.access.permissions import Permission
from dashboard.catalog.badges import newest_operations, with_badges
from dashboard.http.request import Request
from dashboard.views.resources.services import with_models
from deployments.models import Asset, HostingAccount, Image, Manifest, Operation, RegisteredModel, Service
from deployments.models.operation import OPEN, State

SERVICES = 12  # shown on the overview
RECENT = 6
FAILED_LATELY = timedelta(days=7)
STEPS = (
    ("models", RegisteredModel),
    ("assets", Asset),
    ("manifests", Manifest),
    ("images", Image),
    ("services", Service),
)


@require_safe
@signed_in
def home(request: Request) -> HttpResponse:
    """Lead to the account the reader used last in this session, else to the first; explain where there is none."""
    names = [account.name for account in visible_accounts(request.user)]
    if not names:
        return render(request, "home/no_account.html")
    last = request.session.get("account")
    return redirect("account_home", last if last in names else names[0])


@require_safe
@requires(Permission.SEE)
def account_home(request: Request, account: HostingAccount) -> HttpResponse:
    """What runs, what is in flight and what failed in the account; how to get started while nothing runs."""
    if request.session.get("account") != account.name:
        request.session["account"] = account.name
    partial = request.htmx.target == "overview"
    return render(request, "home/_overview.html" if partial else "home/account_home.html", _overview(account))


def _overview(account: HostingAccount) -> dict[str, Any]:
    operations = Operation.objects.filter(account=account)
    services = with_models().filter(account=account, vanished_at=None)
    since = timezone.now() - FAILED_LATELY
    failed = operations.filter(state=State.FAILED, requested_at__gt=since, retries=None)
    return {
        "services": with_badges(account, services.order_by("name")[:SERVICES]),
        "in_flight": newest_operations(account, operations.filter(state__in=sorted(OPEN)), SERVICES),
        "failed": newest_operations(account, failed, RECENT),
        "recent": newest_operations(account, operations.filter(state=State.SUCCEEDED), RECENT),
        "counts": (counts := {name: _count(account, noun) for name, noun in STEPS}),
        "more_services": counts["services"] - SERVICES,
        "next_step": next((name for name, _ in STEPS if not counts[name]), ""),
        "seen_at": account.services_seen_at,
    }


def _count(account: HostingAccount, noun: Any) -> int:
    """How many there are; of what the server makes, only what it has. Services also while they are being made."""
    rows = noun.objects.filter(account=account)
    if noun is not Asset:
        rows = rows.filter(vanished_at=None)
    return (rows if noun in {Asset, Service} else rows.exclude(mms_id=None)).count()
