"""The people of the site, for administrators: who there is, who may sign in, and who administers.

Nobody is deleted: their name stands in operations and in the audit, and must never come to mean somebody else.
"""

from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import get_user_model
from django.contrib.auth.tokens import default_token_generator
from django.contrib.auth.views import PasswordResetConfirmView
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse, reverse_lazy
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode
from django.views.decorators.http import require_POST

from dashboard.access import revocation
from dashboard.access.guards import administrators, anyone
from dashboard.access.models import Membership, Role
from dashboard.access.permissions import Permission
from dashboard.audit.record import Result, note_details
from dashboard.auth import events, sessions
from dashboard.forms.site.person import AddPersonForm
from dashboard.http.request import Request
from dashboard.views.forms.submit import INVALID
from deployments.models import HostingAccount

ROWS = 50
# What can be done with a person: the field that changes, and what it becomes.
CHANGES = {
    "deactivate": ("is_active", False),
    "activate": ("is_active", True),
    "make_administrator": ("is_superuser", True),
    "make_member": ("is_superuser", False),
}


@administrators(Permission.CHANGE_PEOPLE)
def list_people(request: Request) -> HttpResponse:
    """Everybody; POST adds a person and shows, once, the link behind which they choose a password."""
    form = AddPersonForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        person = form.save()
        note_details(request, action="add_person", target=person)
        return _show(request, AddPersonForm(), invited=person)
    return _show(request, form)


@require_POST
@administrators(Permission.CHANGE_PEOPLE)
def invite_person(request: Request, pk: int) -> HttpResponse:
    """A new link to choose a password, for somebody who has none, or has forgotten it. An older link is void."""
    # A machine never signs in, and who comes from the provider does so there.
    person = get_object_or_404(get_user_model(), pk=pk, is_active=True, identity=None, machine=None)
    note_details(request, target=person)
    return _show(request, AddPersonForm(), invited=person)


@require_POST
@administrators(Permission.CHANGE_PEOPLE)
def change_person(request: Request, pk: int) -> HttpResponse:
    """Do one of CHANGES; never so that no administrator is left who can sign in."""
    asked = request.POST.get("do", "")
    person, refusal = change(request, pk, asked)
    if refusal:
        messages.error(request, refusal)
    else:
        messages.success(request, f"{person}: {asked.replace('_', ' ')}, done.")
    return redirect("list_people")


def change(request: Request, pk: int, asked: str) -> tuple[Any, str]:
    """The person, with whom one of CHANGES was done, and ""; or why it was not. Raises Http404."""
    person: Any = get_object_or_404(get_user_model().objects.select_for_update(), pk=pk)
    note_details(request, target=person)
    if refusal := _refusal(asked, person, request.user):
        note_details(request, result=Result.REFUSED, after={"refused": refusal})
        return person, refusal
    field, value = CHANGES[asked]
    note_details(request, before={field: getattr(person, field)}, after={field: value})
    setattr(person, field, value)
    person.save(update_fields=[field])
    if not person.is_active:
        sessions.end_all(person)
    revocation.cancel_unauthorized_operations()
    return person, ""


class ChoosePassword(PasswordResetConfirmView):
    """The page behind the link. Django's own: the link is void once used, and after PASSWORD_RESET_TIMEOUT.

    Whoever comes from the identity provider gets no password here, whatever link there was before.
    """

    template_name = "people/choose_password.html"
    success_url = reverse_lazy("sign_in")

    def get_user(self, uidb64: str) -> Any:
        user = super().get_user(uidb64)
        return None if user is None or not user.is_active or hasattr(user, "identity") else user

    def form_valid(self, form: Any) -> HttpResponse:
        events.record_change("choose_password", self.request, form.user)
        sessions.end_all(form.user)
        messages.success(self.request, "Your password is set. You can sign in with it now.")
        return super().form_valid(form)


choose_password = anyone(ChoosePassword.as_view())


def _refusal(asked: str, person: Any, reader: Any) -> str:
    if asked not in CHANGES:
        return "Nothing was changed. Choose an action."
    _, value = CHANGES[asked]
    if person.pk == reader.pk and not value:
        return "You can’t remove your own access. Ask another administrator."
    administrators_left = get_user_model().objects.filter(is_superuser=True, is_active=True).exclude(pk=person.pk)
    if person.is_superuser and not value and not administrators_left.exists():
        return "Nothing was changed. This is the last administrator who can sign in."
    return ""


def _show(request: Request, form: AddPersonForm, invited: Any = None) -> HttpResponse:
    sought = sought_in(request)
    page = Paginator(find(sought), ROWS).get_page(request.GET.get("page"))
    facts = {"form": form, "page": page, "people": with_roles(page.object_list), "q": sought}
    if invited:
        facts |= {"invited": invited, "link": _link(invited), "hours": settings.PASSWORD_RESET_TIMEOUT // 3600}
    return render(request, "people/list.html", facts, status=INVALID if form.is_bound else 200)


def _link(person: Any) -> str:
    uid, token = urlsafe_base64_encode(force_bytes(person.pk)), default_token_generator.make_token(person)
    return f"{settings.SITE_URL}{reverse('choose_password', args=[uid, token])}"


def sought_in(request: Request) -> str:
    """The part of a name that ?q= asks for."""
    return request.GET.get("q", "").replace("\x00", "").strip()[:150]


def find(sought: str) -> QuerySet[Any]:
    """Everybody with `sought` in their name, by name."""
    people = get_user_model().objects.select_related("identity", "machine")
    return people.filter(username__icontains=sought).order_by("username")


def with_roles(people: Iterable[Any]) -> list[tuple[Any, list[str]]]:
    """Each with their roles in words: `lab: Operator`."""
    names = dict(HostingAccount.objects.values_list("pk", "name"))
    roles: dict[int, list[str]] = {}
    people = list(people)
    for member in Membership.objects.filter(user__in=people):
        roles.setdefault(member.user_id, []).append(f"{names.get(member.account_id, '?')}: {Role(member.role).label}")
    return [(person, sorted(roles.get(person.pk, []))) for person in people]
