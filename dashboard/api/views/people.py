"""The people of the site and what they did: by the forms and functions of the pages “People” and “Who did what”."""

from typing import Any

from django import forms
from django.core.paginator import Paginator
from django.http import HttpResponse, JsonResponse

from dashboard.access.permissions import Permission
from dashboard.api.errors import Problem, of_form, wrong
from dashboard.api.guards import ApiRequest, administrators, operators
from dashboard.api.openapi import settings
from dashboard.api.openapi.declare import Body, declare
from dashboard.api.openapi.fields import PAGE, SEARCH, filters
from dashboard.api.parsing import form_data, only, read_object
from dashboard.api.serializers import moment
from dashboard.api.views.resources import check_names, where
from dashboard.audit.models import AuditEntry
from dashboard.audit.record import note_details
from dashboard.forms.site.audit import AuditFilterForm
from dashboard.forms.site.person import AddPersonForm
from dashboard.views.site import people
from dashboard.views.site.audit import ROWS, entries_of

SEARCHED = {"q": SEARCH, "page": PAGE}
FILTERS = filters(AuditFilterForm.base_fields)
ADD_PERSON = Body("AddUser", lambda: {"name": AddPersonForm.base_fields["username"]}, {"name": "nina"})
CHANGE_PERSON = Body(
    "ChangeUser",
    lambda: {"do": forms.ChoiceField(choices=[(name, name) for name in people.CHANGES])},
    {"do": "deactivate"},
)


@administrators(Permission.CHANGE_PEOPLE)
@declare(settings.UserList, query=SEARCHED)
def list_people(request: ApiRequest) -> HttpResponse:
    """List all users and service accounts."""
    check_names(request, SEARCHED)
    found = people.find(people.sought_in(request))
    page = Paginator(found, people.ROWS).get_page(request.GET.get("page"))
    rows = [show_person(person, roles) for person, roles in people.with_roles(page.object_list)]
    return JsonResponse({"people": rows, **where(request, page)})


@administrators(Permission.CHANGE_PEOPLE, action="add_person")
@declare(settings.User, status=201, bodies=(ADD_PERSON,))
def add_person(request: ApiRequest) -> HttpResponse:
    """Add a user. The link for choosing a password is available only on the page for users."""
    body = read_object(request)
    only(body, {"name"})
    data = form_data({"name": AddPersonForm().fields["username"]}, body)
    data["username"] = data.get("name", "")
    form = AddPersonForm(data)
    if not form.is_valid():
        refused = of_form(form)
        said = refused.fields.get("username", [])
        raise wrong("name", " ".join(said)) if said else refused
    person = form.save()
    note_details(request, target=person)
    return JsonResponse(show_person(person, []), status=201)


@administrators(Permission.CHANGE_PEOPLE, action="change_person")
@declare(settings.User, bodies=(CHANGE_PERSON,), conflicts=True)
def change_person(request: ApiRequest, pk: int) -> HttpResponse:
    """Activate or deactivate a user, or grant or remove administrator rights."""
    body = read_object(request)
    only(body, {"do"})
    asked = body.get("do")
    if not isinstance(asked, str) or asked not in people.CHANGES:
        raise wrong("do", f"Give one of {', '.join(people.CHANGES)}.")
    person, refusal = people.change(request, pk, asked)
    if refusal:
        raise Problem(409, refusal)
    ((person, roles),) = people.with_roles([person])
    return JsonResponse(show_person(person, roles))


@operators
@declare(settings.AuditLog, query=FILTERS)
def list_audit(request: ApiRequest, accounts: frozenset[int] | None) -> HttpResponse:
    """List the audit entries of the accounts that you operate, newest first."""
    form = AuditFilterForm(entries_of(accounts), request.GET)
    check_names(request, FILTERS)
    if not form.is_valid():
        raise of_form(form)
    page = Paginator(form.find(), ROWS).get_page(request.GET.get("page"))
    return JsonResponse({"entries": [show_entry(entry) for entry in page.object_list], **where(request, page)})


def show_person(person: Any, roles: list[str]) -> settings.User:
    return {
        "id": person.pk,
        "name": person.get_username(),
        "can_sign_in": person.is_active,
        "administrator": person.is_superuser,
        "machine": hasattr(person, "machine"),
        "roles": roles,
    }


def show_entry(entry: AuditEntry) -> settings.AuditRecord:
    return {
        "id": entry.pk,
        "at": moment(entry.at),
        "actor": entry.actor,
        "via": entry.via,
        "action": entry.action,
        "account_name": entry.account_name,
        "target": entry.target,
        "address": entry.address,
        "result": entry.result,
        "before": entry.before,
        "after": entry.after,
    }
