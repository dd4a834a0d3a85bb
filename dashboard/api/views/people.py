"""Routes of users and of the audit log."""

from typing import Any

from django import forms
from django.core.paginator import Paginator
from django.http import HttpResponse, JsonResponse

from dashboard.access.permissions import Permission
from dashboard.actions import people
from dashboard.api.errors import ApiError, invalid_field, invalid_form
from dashboard.api.guards import ApiRequest, administrators, operators
from dashboard.api.openapi import settings
from dashboard.api.openapi.declare import Body, declare
from dashboard.api.openapi.fields import PAGE, SEARCH, filters
from dashboard.api.parsing import check_fields, form_data, read_object
from dashboard.api.serializers import isoformat
from dashboard.api.views.resources import check_parameters, page_position
from dashboard.audit.entries import PAGE_SIZE, entries_of
from dashboard.audit.models import AuditEntry
from dashboard.audit.record import note_details
from dashboard.forms.site.audit import AuditFilterForm
from dashboard.forms.site.person import AddPersonForm

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
    check_parameters(request, SEARCHED)
    found = people.search_people(people.search_query(request))
    page = Paginator(found, people.PAGE_SIZE).get_page(request.GET.get("page"))
    rows = [serialize_person(person, roles) for person, roles in people.with_roles(page.object_list)]
    return JsonResponse({"people": rows, **page_position(request, page)})


@administrators(Permission.CHANGE_PEOPLE, action="add_person")
@declare(settings.User, status=201, bodies=(ADD_PERSON,))
def add_person(request: ApiRequest) -> HttpResponse:
    """Add a user. The link for choosing a password is available only on the page for users."""
    body = read_object(request)
    check_fields(body, {"name"})
    data = form_data({"name": AddPersonForm().fields["username"]}, body)
    data["username"] = data.get("name", "")
    form = AddPersonForm(data)
    if not form.is_valid():
        error = invalid_form(form)
        reasons = error.fields.get("username", [])
        raise invalid_field("name", " ".join(reasons)) if reasons else error
    person = form.save()
    note_details(request, target=person)
    return JsonResponse(serialize_person(person, []), status=201)


@administrators(Permission.CHANGE_PEOPLE, action="change_person")
@declare(settings.User, bodies=(CHANGE_PERSON,), conflicts=True)
def change_person(request: ApiRequest, pk: int) -> HttpResponse:
    """Activate or deactivate a user, or grant or remove administrator rights."""
    body = read_object(request)
    check_fields(body, {"do"})
    change = body.get("do")
    if not isinstance(change, str) or change not in people.CHANGES:
        raise invalid_field("do", f"Give one of {', '.join(people.CHANGES)}.")
    person, refusal = people.change_person(request, pk, change)
    if refusal:
        raise ApiError(409, refusal)
    ((person, roles),) = people.with_roles([person])
    return JsonResponse(serialize_person(person, roles))


@operators
@declare(settings.AuditLog, query=FILTERS)
def list_audit(request: ApiRequest, accounts: frozenset[int] | None) -> HttpResponse:
    """List the audit entries of the accounts that you operate, newest first."""
    form = AuditFilterForm(entries_of(accounts), request.GET)
    check_parameters(request, FILTERS)
    if not form.is_valid():
        raise invalid_form(form)
    page = Paginator(form.find_entries(), PAGE_SIZE).get_page(request.GET.get("page"))
    return JsonResponse(
        {"entries": [serialize_entry(entry) for entry in page.object_list], **page_position(request, page)}
    )


def serialize_person(person: Any, roles: list[str]) -> settings.User:
    """Return a user or service account; `roles` as from people.with_roles."""
    return {
        "id": person.pk,
        "name": person.get_username(),
        "can_sign_in": person.is_active,
        "administrator": person.is_superuser,
        "machine": hasattr(person, "machine"),
        "roles": roles,
    }


def serialize_entry(entry: AuditEntry) -> settings.AuditRecord:
    """Return an audit entry."""
    return {
        "id": entry.pk,
        "at": isoformat(entry.at),
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
