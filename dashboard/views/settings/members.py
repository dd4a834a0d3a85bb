"""The page of an account's members and their roles."""

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from dashboard.access.guards import requires
from dashboard.access.models import Role
from dashboard.access.permissions import Permission
from dashboard.actions import members
from dashboard.audit.record import Result, note_details
from dashboard.forms.settings.member import AddMemberForm, RoleForm
from dashboard.http.request import Request
from dashboard.views.forms.submit import INVALID_FORM_STATUS
from deployments.models import HostingAccount


@requires(Permission.CHANGE_MEMBERS)
def list_members(request: Request, account: HostingAccount) -> HttpResponse:
    """List the members; on POST, add one."""
    form = AddMemberForm(account, request.POST or None)
    if request.method == "POST" and form.is_valid() and (member := members.add_member(request, form)):
        messages.success(request, f"{member.user} now has the role {Role(member.role).label}.")
        return redirect("list_members", account.name)
    rows = members.members_of(account).order_by("user__username")
    page = {"form": form, "members": rows, "role_choices": Role.choices}
    return render(request, "members/list.html", page, status=INVALID_FORM_STATUS if form.is_bound else 200)


@require_POST
@requires(Permission.CHANGE_MEMBERS)
def change_member(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    """Change the role of a member."""
    member, form = members.member_or_404(account, pk), RoleForm(request.POST)
    if not form.is_valid():
        note_details(request, target=member.user, result=Result.REFUSED)
        messages.error(request, "Nothing was changed. Choose one of the roles.")
        return redirect("list_members", account.name)
    members.change_member(request, member, form.cleaned_data["role"])
    messages.success(request, f"{member.user} now has the role {Role(member.role).label}.")
    return redirect("list_members", account.name)


@require_POST
@requires(Permission.CHANGE_MEMBERS)
def remove_member(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    """Remove a member; redirect users who removed themselves to the home page."""
    member = members.member_or_404(account, pk)
    members.remove_member(request, member)
    messages.success(request, f"Removed {member.user} from {account.name}.")
    if member.user == request.user:
        return redirect("home")
    return redirect("list_members", account.name)
