"""Users of the site: search, and activate, deactivate or change administrator rights.

Users are never deleted: operations and the audit log refer to them by name, so a name must not be reused.
"""

from collections.abc import Iterable
from typing import Any

from django.contrib.auth import get_user_model
from django.db.models import QuerySet
from django.shortcuts import get_object_or_404

from dashboard.access import revocation
from dashboard.access.models import Membership, Role
from dashboard.audit.record import Result, note_details
from dashboard.auth import sessions
from dashboard.http.request import Request
from deployments.models import HostingAccount

PAGE_SIZE = 50
MAX_QUERY_CHARS = 150
# The field that each change sets, and its new value.
CHANGES = {
    "deactivate": ("is_active", False),
    "activate": ("is_active", True),
    "make_administrator": ("is_superuser", True),
    "make_member": ("is_superuser", False),
}


def change_person(request: Request, pk: int, change: str) -> tuple[Any, str]:
    """Apply one of CHANGES to a user. Return the user and the reason for refusing the change, or "".

    Raise Http404 if the user doesn't exist.
    """
    person: Any = get_object_or_404(get_user_model().objects.select_for_update(), pk=pk)
    note_details(request, target=person)
    if reason := _denial_reason(change, person, request.user):
        note_details(request, result=Result.REFUSED, after={"refused": reason})
        return person, reason
    field, value = CHANGES[change]
    note_details(request, before={field: getattr(person, field)}, after={field: value})
    setattr(person, field, value)
    person.save(update_fields=[field])
    if not person.is_active:
        sessions.end_all(person)
    revocation.cancel_unauthorized_operations()
    return person, ""


def search_query(request: Request) -> str:
    """Return the part of a name that `?q=` searches for."""
    return request.GET.get("q", "").replace("\x00", "").strip()[:MAX_QUERY_CHARS]


def search_people(query: str) -> QuerySet[Any]:
    """Return the users and service accounts whose name contains `query`, by name."""
    people = get_user_model().objects.select_related("identity", "machine")
    return people.filter(username__has_word=query).order_by("username")


def with_roles(people: Iterable[Any]) -> list[tuple[Any, list[str]]]:
    """Pair each user with labels of their roles, such as `lab: Operator`."""
    names = dict(HostingAccount.objects.values_list("pk", "name"))
    roles: dict[int, list[str]] = {}
    people = list(people)
    for member in Membership.objects.filter(user__in=people):
        roles.setdefault(member.user_id, []).append(f"{names.get(member.account_id, '?')}: {Role(member.role).label}")
    return [(person, sorted(roles.get(person.pk, []))) for person in people]


def _denial_reason(change: str, person: Any, user: Any) -> str:
    if change not in CHANGES:
        return "Nothing was changed. Choose an action."
    _, value = CHANGES[change]
    if person.pk == user.pk and not value:
        return "You can’t remove your own access. Ask another administrator."
    administrators_left = get_user_model().objects.filter(is_superuser=True, is_active=True).exclude(pk=person.pk)
    if person.is_superuser and not value and not administrators_left.exists():
        return "Nothing was changed. This is the last administrator who can sign in."
    return ""
