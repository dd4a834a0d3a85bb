"""Members of an account: who has which role in it. Whoever loses a right loses what waits in the queue with it."""

from django.contrib import messages
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST

from dashboard.access import revocation
from dashboard.access.guards import requires
from dashboard.access.models import Membership, Role, Source
from dashboard.access.permissions import Permission
from dashboard.audit.record import Result, note_details
from dashboard.forms.settings.member import AddMemberForm, RoleForm
from dashboard.http.request import Request
from dashboard.views.forms.submit import INVALID
from deployments.models import HostingAccount


@requires(Permission.CHANGE_MEMBERS)
def list_members(request: Request, account: HostingAccount) -> HttpResponse:
    """All members; POST adds one."""
    form = AddMemberForm(account, request.POST or None)
    if request.method == "POST" and form.is_valid() and (member := add(request, form)):
        messages.success(request, f"{member.user} now has the role {Role(member.role).label}.")
        return redirect("list_members", account.name)
    members = members_of(account).order_by("user__username")
    page = {"form": form, "members": members, "role_choices": Role.choices}
    return render(request, "members/list.html", page, status=INVALID if form.is_bound else 200)


@require_POST
@requires(Permission.CHANGE_MEMBERS)
def change_member(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    member, form = member_of(account, pk), RoleForm(request.POST)
    if not form.is_valid():
        note_details(request, target=member.user, result=Result.REFUSED)
        messages.error(request, "Nothing was changed. Choose one of the roles.")
        return redirect("list_members", account.name)
    give(request, member, form.cleaned_data["role"])
    messages.success(request, f"{member.user} now has the role {Role(member.role).label}.")
    return redirect("list_members", account.name)


@require_POST
@requires(Permission.CHANGE_MEMBERS)
def remove_member(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    member = member_of(account, pk)
    take(request, member)
    messages.success(request, f"Removed {member.user} from {account.name}.")
    if member.user == request.user:
        return redirect("home")
    return redirect("list_members", account.name)


def members_of(account: HostingAccount) -> QuerySet[Membership]:
    return Membership.objects.filter(account_id=account.pk).select_related("user")


def member_of(account: HostingAccount, pk: int) -> Membership:
    """Raises Http404."""
    return get_object_or_404(members_of(account), pk=pk)


def add(request: Request, form: AddMemberForm) -> Membership | None:
    """Store what a valid form says; None where somebody was quicker, and the form says so."""
    try:
        with transaction.atomic():
            member = form.save()
    except IntegrityError:
        form.add_error("name", "They were just given a role. Change it in the list.")
        return None
    note_details(request, action="add_member", target=member.user, after={"role": member.role})
    return member


def give(request: Request, member: Membership, role: str) -> None:
    """Another role for a member, from now on."""
    before, member.role = member.role, role
    member.source = Source.SITE  # from now on it is up to the members page, whatever the groups say
    member.save(update_fields=["role", "source"])
    note_details(request, target=member.user, before={"role": before}, after={"role": member.role})
    revocation.cancel_unauthorized_operations()


def take(request: Request, member: Membership) -> None:
    """They are no longer a member."""
    member.delete()
    note_details(request, target=member.user, before={"role": member.role}, after={"role": ""})
    revocation.cancel_unauthorized_operations()
