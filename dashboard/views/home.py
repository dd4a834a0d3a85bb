"""The home page, and the overview of an account: services, operations in flight, failures."""

from datetime import timedelta
from typing import Any

from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_safe

from dashboard.access.guards import requires, signed_in, visible_accounts
from dashboard.access.permissions import Permission
from dashboard.catalog.badges import newest_operations, with_badges
from dashboard.catalog.lists.services import services_with_models
from dashboard.http.request import Request
from deployments.live.badges import list_trouble
from deployments.models import Asset, HostingAccount, Image, Manifest, Operation, RegisteredModel, Service
from deployments.models.operation import OPEN, State

MAX_SERVICES = 12  # shown on the overview, also the maximum number of operations in flight
MAX_RECENT = 6  # operations
FAILED_WITHIN = timedelta(days=7)
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
    """Redirect to the account used last in this session, or the first one; explain if the user has no account."""
    names = [account.name for account in visible_accounts(request.user)]
    if not names:
        return render(request, "home/no_account.html")
    last = request.session.get("account")
    return redirect("account_home", last if last in names else names[0])


@require_safe
@requires(Permission.SEE)
def account_home(request: Request, account: HostingAccount) -> HttpResponse:
    """Show services, operations in flight and recent failures; the next step if the account has no services."""
    if request.session.get("account") != account.name:
        request.session["account"] = account.name
    partial = request.htmx.target == "overview"
    return render(request, "home/_overview.html" if partial else "home/account_home.html", _overview(account))


def _overview(account: HostingAccount) -> dict[str, Any]:
    operations = Operation.objects.filter(account=account)
    services = services_with_models().filter(account=account, vanished_at=None)
    since = timezone.now() - FAILED_WITHIN
    failed = operations.filter(state=State.FAILED, requested_at__gt=since, retries=None)
    return {
        "services": with_badges(account, services.order_by("name")[:MAX_SERVICES]),
        "in_flight": newest_operations(account, operations.filter(state__in=sorted(OPEN)), MAX_SERVICES),
        "failed": newest_operations(account, failed, MAX_RECENT),
        "recent": newest_operations(account, operations.filter(state=State.SUCCEEDED), MAX_RECENT),
        "counts": (counts := {name: _count(account, cls) for name, cls in STEPS}),
        "more_services": counts["services"] - MAX_SERVICES,
        "next_step": next((name for name, _ in STEPS if not counts[name]), ""),
        "seen_at": account.services_seen_at,
        "list_trouble": list_trouble(account, "service"),
    }


def _count(account: HostingAccount, cls: Any) -> int:
    """Count the rows that exist at the server; also assets, and services that are being deployed."""
    rows = cls.objects.filter(account=account)
    if cls is not Asset:
        rows = rows.filter(vanished_at=None)
    count: int = (rows if cls in {Asset, Service} else rows.exclude(mms_id=None)).count()
    return count
