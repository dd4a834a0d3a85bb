"""Members of an account: look up, add, change the role, remove.

A user who loses a permission also loses the queued operations that need it.
"""

from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.shortcuts import get_object_or_404

from dashboard.access import revocation
from dashboard.access.models import Membership, Source
from dashboard.audit.record import note_details
from dashboard.forms.settings.member import AddMemberForm
from dashboard.http.request import Request
from deployments.models import HostingAccount


def members_of(account: HostingAccount) -> QuerySet[Membership]:
    """Return the memberships of the account with their users."""
    return Membership.objects.filter(account_id=account.pk).select_related("user")


def member_or_404(account: HostingAccount, pk: int) -> Membership:
    """Return the membership. Raise Http404 if the account has none with this id."""
    return get_object_or_404(members_of(account), pk=pk)


def add_member(request: Request, form: AddMemberForm) -> Membership | None:
    """Store the membership of a valid form. Return None, with a form error, if the user has just become a member.

    If two requests arrive at the same time, the unique constraint rejects the second.
    """
    try:
        with transaction.atomic():
            member = form.save()
    except IntegrityError:
        form.add_error("name", "They already have a role in this account. Change it in the list.")
        return None
    note_details(request, action="add_member", target=member.user, after={"role": member.role})
    return member


def change_member(request: Request, member: Membership, role: str) -> None:
    """Change the role of a member. From now on, group claims of the identity provider no longer change it."""
    before, member.role = member.role, role
    member.source = Source.SITE
    member.save(update_fields=["role", "source"])
    note_details(request, target=member.user, before={"role": before}, after={"role": member.role})
    revocation.cancel_unauthorized_operations()


def remove_member(request: Request, member: Membership) -> None:
    """Remove a member from the account."""
    member.delete()
    note_details(request, target=member.user, before={"role": member.role}, after={"role": ""})
    revocation.cancel_unauthorized_operations()
