"""Routes of an account's server and of accounts as a whole. They use the forms of the pages; secrets are write-only."""

from django.http import HttpResponse, JsonResponse
from django.urls import reverse

from dashboard.access.permissions import Permission
from dashboard.actions import accounts
from dashboard.api import serializers
from dashboard.api.errors import ApiError, invalid_form
from dashboard.api.guards import ApiRequest, administrators, requires
from dashboard.api.openapi import settings
from dashboard.api.openapi.declare import LOCATION, Body, declare
from dashboard.api.openapi.fields import new_row
from dashboard.api.parsing import check_fields, form_data, read_object
from dashboard.api.views.settings import save_row
from dashboard.forms.settings.server import AddAccountForm, ConfirmForm, ServerForm
from deployments.models import HostingAccount

NEW_ACCOUNT = {
    "name": "local",
    "base_url": "https://mms.example",
    "subscription": "s",
    "resource_group": "g",
    "hosting_account": "h",
    "token": "the-token-of-the-server",
}


@requires(Permission.CHANGE_SERVER)
@declare(settings.Server)
def get_server(request: ApiRequest, account: HostingAccount) -> HttpResponse:
    """Return the account's server and how the dashboard signs in to it, without the secret."""
    return JsonResponse(serializers.serialize_server(accounts.reload_account(account)))


@requires(Permission.CHANGE_SERVER, action="change_server")
@declare(
    settings.Server,
    bodies=(Body("ChangeServer", lambda: ServerForm.base_fields, {"subscription": "another"}, partial=True),),
    conflicts=True,
)
def change_server(request: ApiRequest, account: HostingAccount) -> HttpResponse:
    """Change the server. Send only the fields that change; without a secret, the stored one stays in use."""
    return JsonResponse(serializers.serialize_server(save_row(request, ServerForm, accounts.reload_account(account))))


@requires(Permission.CHANGE_SERVER)
@declare(settings.PauseEnded, status=202)
def end_pause(request: ApiRequest, account: HostingAccount) -> HttpResponse:
    """Make workers call the server now, even if it requested a pause or rejected the credentials."""
    check_fields(read_object(request), ())
    ended: settings.PauseEnded = {"pause": "ended" if accounts.end_pause(request, account) else "none"}
    return JsonResponse(ended, status=202)


@administrators(Permission.CHANGE_ACCOUNTS, action="add_account")
@declare(
    settings.AddedAccount,
    status=201,
    bodies=(Body("AddAccount", lambda: new_row(AddAccountForm), NEW_ACCOUNT),),
    headers=LOCATION,
    conflicts=True,
)
def add_account(request: ApiRequest) -> HttpResponse:
    """Add a hosting account and its server."""
    account = save_row(request, AddAccountForm, HostingAccount())
    response = JsonResponse({"name": account.name, **serializers.serialize_server(account)}, status=201)
    response.headers["Location"] = reverse("v1_get_account", args=[account.name])
    return response


@requires(Permission.CHANGE_ACCOUNTS, action="delete_account")
@declare(
    None,
    status=204,
    bodies=(Body("DeleteAccount", lambda: ConfirmForm.base_fields, {"name": "local"}),),
    conflicts=True,
)
def delete_account(request: ApiRequest, account: HostingAccount) -> HttpResponse:
    """Delete the account and everything that the dashboard stores about it. Confirm with its name."""
    form = ConfirmForm(account.name, form_data(ConfirmForm(account.name).fields, read_object(request)))
    if not form.is_valid():
        raise invalid_form(form)
    if not accounts.delete_account(request, account):
        raise ApiError(409, "Operations are still open. Wait for them to finish, or cancel them.")
    return HttpResponse(status=204)
