"""The first page, and the overview of one account: what runs, what is in flight, what failed."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_safe

from dashboard.access import requires, signed_in, visible_accounts
from dashboard.models import Role
from deployments.models import HostingAccount


@require_safe
@signed_in
def home(request: HttpRequest) -> HttpResponse:
    """Lead to the account the reader used last in this session, else to the first; explain where there is none."""
    names = [account.name for account in visible_accounts(request.user)]
    if not names:
        return render(request, "home/no_account.html")
    last = request.session.get("account")
    return redirect("account_home", last if last in names else names[0])


@require_safe
@requires(Role.VIEWER)
def account_home(request: HttpRequest, account: HostingAccount) -> HttpResponse:
    """What runs, what is in flight and what failed in the account; how to get started when it is empty."""
    if request.session.get("account") != account.name:
        request.session["account"] = account.name
    return render(request, "home/account_home.html")
