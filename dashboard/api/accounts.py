"""The server of an account, and accounts as a whole: by the forms of the pages. A secret is written, and never read."""

from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import reverse

from dashboard.api import things
from dashboard.api.bodies import form_data, read_object
from dashboard.api.guard import administrators, requires
from dashboard.api.places import write
from dashboard.api.problems import Problem, of_form
from dashboard.forms.server import AddAccountForm, ConfirmForm, ServerForm
from dashboard.permissions import Permission
from dashboard.views import server_forms
from deployments.models import HostingAccount


@requires(Permission.CHANGE_SERVER)
def get_server(request: HttpRequest, account: HostingAccount) -> HttpResponse:
    """Where the account's server is and as whom it is called, without the secret."""
    return JsonResponse(show_server(server_forms.fresh(account)))


@requires(Permission.CHANGE_SERVER, action="change_server")
def change_server(request: HttpRequest, account: HostingAccount) -> HttpResponse:
    """Change that: the fields that change. An absent secret keeps the old one."""
    return JsonResponse(show_server(write(request, ServerForm, server_forms.fresh(account))))


@administrators(Permission.CHANGE_ACCOUNTS, action="add_account")
def add_account(request: HttpRequest) -> HttpResponse:
    """Add a hosting account: the fields of its form. 201 with its server."""
    account = write(request, AddAccountForm, HostingAccount())
    answer = JsonResponse({"name": account.name, **show_server(account)}, status=201)
    answer.headers["Location"] = reverse("v1_get_account", args=[account.name])
    return answer


@requires(Permission.CHANGE_ACCOUNTS, action="delete_account")
def delete_account(request: HttpRequest, account: HostingAccount) -> HttpResponse:
    """Forget the account and all that is known of it here: {"name": its name once more}. 204."""
    form = ConfirmForm(account.name, form_data(ConfirmForm(account.name).fields, read_object(request)))
    if not form.is_valid():
        raise of_form(form)
    if not server_forms.delete(request, account):
        raise Problem(409, "There are open operations: wait for them, or cancel them.")
    return HttpResponse(status=204)


def show_server(account: HostingAccount) -> dict[str, Any]:
    plain = {name: getattr(account, name) for name in ServerForm.Meta.fields}
    secrets = [things.show_secret(account, name, bool(getattr(account, name))) for name in account.SECRETS]
    return {**plain, **secrets[0], **secrets[1]}
