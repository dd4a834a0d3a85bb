"""The server of an account, and accounts as a whole: add, change, try, delete."""

from typing import Any

from django.contrib import messages
from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_POST

from dashboard.access.guards import administrators, requires
from dashboard.access.models import Membership
from dashboard.access.permissions import Permission
from dashboard.audit.record import note_details
from dashboard.forms.settings.server import AddAccountForm, ConfirmForm, ServerForm
from dashboard.http.request import Request
from dashboard.ops.startup import bundled_account
from dashboard.views.forms.submit import INVALID
from dashboard.views.settings.pages import show_trial, write_settings
from deployments.accounts.connection_tests import with_timeout
from deployments.accounts.connection_tests.server import try_server
from deployments.models import (
    Asset,
    Cluster,
    HostingAccount,
    Image,
    Manifest,
    Operation,
    RegisteredModel,
    RegistryInfo,
    Service,
)
from deployments.models.operation import OPEN

DEPENDENT = (Service, Image, Manifest, RegisteredModel, Asset, Operation, RegistryInfo, Cluster)


@sensitive_post_parameters()
@requires(Permission.CHANGE_SERVER)
def change_server(request: Request, account: HostingAccount) -> HttpResponse:
    form = ServerForm(request.POST or None, instance=fresh(account))
    return write_settings(request, form, "settings/change_server.html", done="change_server", context=_page(account))


@require_POST
@sensitive_post_parameters()
@requires(Permission.CHANGE_SERVER, changes=False)
@sensitive_variables("form")
def test_server(request: Request, account: HostingAccount) -> HttpResponse:
    """Try what is typed, with the secret that is kept where none is typed."""
    form = ServerForm(request.POST, instance=fresh(account))
    trial = with_timeout(lambda: try_server(form.instance)) if form.is_valid() else None
    return show_trial(request, form, trial, "settings/change_server.html", _page(account))


@sensitive_post_parameters()
@administrators(Permission.CHANGE_ACCOUNTS)
def add_account(request: Request) -> HttpResponse:
    form = AddAccountForm(request.POST or None, instance=HostingAccount())
    return write_settings(request, form, "settings/add_account.html", done="change_server")


@requires(Permission.CHANGE_ACCOUNTS)
def delete_account(request: Request, account: HostingAccount) -> HttpResponse:
    """Forget the account and all that is known of it here. Its server is not told, and keeps what it has."""
    form = ConfirmForm(account.name, request.POST or None)
    under_way = Operation.objects.filter(account=account, state__in=OPEN)
    if request.method == "POST" and form.is_valid() and delete(request, account):
        messages.success(
            request, f"Deleted the account “{account.name}” from the dashboard. Nothing on its server was deleted."
        )
        return redirect("home")
    page = {
        "form": form,
        "bundled": account.name == bundled_account.NAME,
        "dependent": _dependent(account),
        "members": Membership.objects.filter(account_id=account.pk).count(),
        "services": Service.objects.filter(account=account, vanished_at=None).exclude(mms_id=None).count(),
        "under_way": list(under_way.select_related("model", "manifest", "image", "service")[:5]),
    }
    return render(request, "settings/delete_account.html", page, status=INVALID if form.is_bound else 200)


@transaction.atomic
def delete(request: Request, account: HostingAccount) -> bool:
    """Forget it here with all that depends on it, unless an operation is open; whether that was done."""
    if Operation.objects.filter(account=account, state__in=OPEN).exists():
        return False
    counts = {label: count for label, count in _dependent(account) if count}
    _delete(account)
    note_details(request, target=account.name, before=counts)
    return True


def _delete(account: HostingAccount) -> None:
    Membership.objects.filter(account_id=account.pk).delete()
    HostingAccount.objects.filter(pk=account.pk).delete()


def _dependent(account: HostingAccount) -> list[tuple[str, int]]:
    names = {RegisteredModel: "models", RegistryInfo: "registries"}
    return [
        (names.get(noun, f"{noun.__name__.lower()}s"), noun.objects.filter(account=account).count())
        for noun in DEPENDENT
    ]


def fresh(account: HostingAccount) -> HostingAccount:
    """Another object of the same row: the form writes into it what the rest of the page must not take for true."""
    return HostingAccount.objects.get(pk=account.pk)


def _page(account: HostingAccount) -> dict[str, Any]:
    bundled = account.name == bundled_account.NAME
    return {"bundled": bundled, "open_operations": Operation.objects.filter(account=account, state__in=OPEN).count()}
