"""Pages of an account's server (change, test) and of accounts as a whole (add, delete)."""

from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_POST

from dashboard.access.guards import administrators, requires
from dashboard.access.models import Membership
from dashboard.access.permissions import Permission
from dashboard.actions import accounts
from dashboard.actions.settings import test_server as run_test
from dashboard.forms.settings.server import AddAccountForm, ConfirmForm, ServerForm
from dashboard.http.request import Request
from dashboard.ops.startup import bundled_account
from dashboard.views.forms.submit import INVALID_FORM_STATUS
from dashboard.views.settings.pages import handle_settings_form, render_connection_test
from deployments.models import HostingAccount, Service


@sensitive_post_parameters()
@requires(Permission.CHANGE_SERVER)
def change_server(request: Request, account: HostingAccount) -> HttpResponse:
    """Show the form; on POST, change the server."""
    form = ServerForm(request.POST or None, instance=accounts.reload_account(account))
    return handle_settings_form(
        request, form, "settings/change_server.html", success_url_name="change_server", context=_page(account)
    )


@require_POST
@sensitive_post_parameters()
@requires(Permission.CHANGE_SERVER, changes=False)
@sensitive_variables("form")
def test_server(request: Request, account: HostingAccount) -> HttpResponse:
    """Test the submitted settings, with the stored secret unless another one was entered."""
    form = ServerForm(request.POST, instance=accounts.reload_account(account))
    result = run_test(form.instance) if form.is_valid() else None
    return render_connection_test(request, form, result, "settings/change_server.html", _page(account))


@sensitive_post_parameters()
@require_POST
@requires(Permission.CHANGE_SERVER)
def end_pause(request: Request, account: HostingAccount) -> HttpResponse:
    """Make workers call the server now, even if it requested a pause or rejected the credentials."""
    if accounts.end_pause(request, account):
        messages.info(request, "Calling the server again. The result will appear here automatically.")
    else:
        messages.info(request, "The server isn’t paused.")
    return redirect("account_home", account.name)


@administrators(Permission.CHANGE_ACCOUNTS)
def add_account(request: Request) -> HttpResponse:
    """Show the form; on POST, add an account and its server."""
    form = AddAccountForm(request.POST or None, instance=HostingAccount())
    return handle_settings_form(request, form, "settings/add_account.html", success_url_name="change_server")


@requires(Permission.CHANGE_ACCOUNTS)
def delete_account(request: Request, account: HostingAccount) -> HttpResponse:
    """Ask for confirmation; on POST, delete the account and everything stored about it. Its server isn't contacted."""
    form = ConfirmForm(account.name, request.POST or None)
    under_way = accounts.open_operations(account)
    if request.method == "POST" and form.is_valid() and accounts.delete_account(request, account):
        messages.success(
            request, f"Deleted the account “{account.name}” from the dashboard. Nothing on its server was deleted."
        )
        return redirect("home")
    page = {
        "form": form,
        "bundled": account.name == bundled_account.NAME,
        "dependent": accounts.count_dependent_rows(account),
        "members": Membership.objects.filter(account_id=account.pk).count(),
        "services": Service.objects.filter(account=account, vanished_at=None).exclude(mms_id=None).count(),
        "under_way": list(under_way.select_related("model", "manifest", "image", "service")[:5]),
    }
    return render(request, "settings/delete_account.html", page, status=INVALID_FORM_STATUS if form.is_bound else 200)


def _page(account: HostingAccount) -> dict[str, Any]:
    bundled = account.name == bundled_account.NAME
    return {"bundled": bundled, "open_operations": accounts.open_operations(account).count()}
