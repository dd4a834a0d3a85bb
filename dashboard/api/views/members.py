"""Routes of an account's members and their roles."""

from django.http import HttpResponse, JsonResponse
from django.urls import reverse

from dashboard.access.models import Membership
from dashboard.access.permissions import Permission
from dashboard.actions import members
from dashboard.api.errors import invalid_form
from dashboard.api.guards import ApiRequest, requires
from dashboard.api.openapi import settings
from dashboard.api.openapi.declare import LOCATION, Body, declare
from dashboard.api.parsing import check_fields, form_data, read_object
from dashboard.forms.settings.member import AddMemberForm, RoleForm
from deployments.models import HostingAccount


@requires(Permission.CHANGE_MEMBERS)
@declare(settings.MemberList)
def list_members(request: ApiRequest, account: HostingAccount) -> HttpResponse:
    """List the members of the account with their roles."""
    rows = members.members_of(account).order_by("user__username")
    return JsonResponse({"members": [serialize_member(row) for row in rows]})


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
    member = members.add_member(request, form) if form.is_valid() else None
    if member is None:
        raise invalid_form(form)
    response = JsonResponse(serialize_member(member), status=201)
    response.headers["Location"] = reverse("v1_get_member", args=[account.name, member.pk])
    return response


@requires(Permission.CHANGE_MEMBERS)
@declare(settings.Member)
def get_member(request: ApiRequest, account: HostingAccount, pk: int) -> HttpResponse:
    """Return one member."""
    return JsonResponse(serialize_member(members.member_or_404(account, pk)))


@requires(Permission.CHANGE_MEMBERS, action="change_member")
@declare(
    settings.Member,
    bodies=(Body("ChangeMember", lambda: RoleForm.base_fields, {"role": "scientist"}),),
)
def change_member(request: ApiRequest, account: HostingAccount, pk: int) -> HttpResponse:
    """Change the role of a member."""
    member = members.member_or_404(account, pk)
    form = RoleForm(form_data(RoleForm().fields, read_object(request)))
    if not form.is_valid():
        raise invalid_form(form)
    members.change_member(request, member, form.cleaned_data["role"])
    return JsonResponse(serialize_member(member))


@requires(Permission.CHANGE_MEMBERS, action="remove_member")
@declare(None, status=204)
def remove_member(request: ApiRequest, account: HostingAccount, pk: int) -> HttpResponse:
    """Remove a member."""
    check_fields(read_object(request), ())
    members.remove_member(request, members.member_or_404(account, pk))
    return HttpResponse(status=204)


def serialize_member(member: Membership) -> settings.Member:
    """Return a member."""
    return {
        "id": member.pk,
        "name": member.user.get_username(),
        "role": member.role,
        "source": member.source,
        "can_sign_in": member.user.is_active,
    }
