"""Who has which role in an account: by the forms and functions of the page Members."""

from django.http import HttpResponse, JsonResponse
from django.urls import reverse

from dashboard.access.models import Membership
from dashboard.access.permissions import Permission
from dashboard.api.errors import of_form
from dashboard.api.guards import ApiRequest, requires
from dashboard.api.openapi import settings
from dashboard.api.openapi.declare import LOCATION, Body, declare
from dashboard.api.parsing import form_data, only, read_object
from dashboard.forms.settings.member import AddMemberForm, RoleForm
from dashboard.views.settings import members
from deployments.models import HostingAccount


@requires(Permission.CHANGE_MEMBERS)
@declare(settings.MemberList)
def list_members(request: ApiRequest, account: HostingAccount) -> HttpResponse:
    """List the members of the account with their roles."""
    rows = members.members_of(account).order_by("user__username")
    return JsonResponse({"members": [show_member(row) for row in rows]})


@requires(Permission.CHANGE_MEMBERS, action="add_member")
@declare(
    settings.Member,
    status=201,
    bodies=(Body("AddMember", lambda: AddMemberForm.base_fields, {"name": "nina", "role": "viewer"}),),
    headers=LOCATION,
)
def add_member(request: ApiRequest, account: HostingAccount) -> HttpResponse:
    """Add a member: give a user a role in the account."""
    form = AddMemberForm(account, form_data(AddMemberForm(account).fields, read_object(request)))
    member = members.add(request, form) if form.is_valid() else None
    if member is None:
        raise of_form(form)
    answer = JsonResponse(show_member(member), status=201)
    answer.headers["Location"] = reverse("v1_get_member", args=[account.name, member.pk])
    return answer


@requires(Permission.CHANGE_MEMBERS)
@declare(settings.Member)
def get_member(request: ApiRequest, account: HostingAccount, pk: int) -> HttpResponse:
    """Return one member."""
    return JsonResponse(show_member(members.member_of(account, pk)))


@requires(Permission.CHANGE_MEMBERS, action="change_member")
@declare(
    settings.Member,
    bodies=(Body("ChangeMember", lambda: RoleForm.base_fields, {"role": "scientist"}),),
)
def change_member(request: ApiRequest, account: HostingAccount, pk: int) -> HttpResponse:
    """Change the role of a member."""
    member = members.member_of(account, pk)
    form = RoleForm(form_data(RoleForm().fields, read_object(request)))
    if not form.is_valid():
        raise of_form(form)
    members.give(request, member, form.cleaned_data["role"])
    return JsonResponse(show_member(member))


@requires(Permission.CHANGE_MEMBERS, action="remove_member")
@declare(None, status=204)
def remove_member(request: ApiRequest, account: HostingAccount, pk: int) -> HttpResponse:
    """Remove a member."""
    only(read_object(request), ())
    members.take(request, members.member_of(account, pk))
    return HttpResponse(status=204)


def show_member(member: Membership) -> settings.Member:
    return {
        "id": member.pk,
        "name": member.user.get_username(),
        "role": member.role,
        "source": member.source,
        "can_sign_in": member.user.is_active,
    }
