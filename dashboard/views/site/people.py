"""The page of users for administrators, and the page behind a link for choosing a password."""

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import get_user_model
from django.contrib.auth.tokens import default_token_generator
from django.contrib.auth.views import PasswordResetConfirmView
from django.core.paginator import Paginator
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse, reverse_lazy
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode
from django.views.decorators.http import require_POST

from dashboard.access.guards import administrators, anyone
from dashboard.access.permissions import Permission
from dashboard.actions import people
from dashboard.audit.record import note_details
from dashboard.auth import events, sessions
from dashboard.forms.site.person import AddPersonForm
from dashboard.http.request import Request
from dashboard.views.forms.submit import INVALID_FORM_STATUS


@administrators(Permission.CHANGE_PEOPLE)
def list_people(request: Request) -> HttpResponse:
    """List users and service accounts; on POST, add a user and show, once, the link for choosing a password."""
    form = AddPersonForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        person = form.save()
        note_details(request, action="add_person", target=person)
        return _render(request, AddPersonForm(), invited=person)
    return _render(request, form)


@require_POST
@administrators(Permission.CHANGE_PEOPLE)
def invite_person(request: Request, pk: int) -> HttpResponse:
    """Show a new link for choosing a password. Older links become invalid."""
    # Service accounts never sign in, and the identity provider's users do so there.
    person = get_object_or_404(get_user_model(), pk=pk, is_active=True, identity=None, machine=None)
    note_details(request, target=person)
    return _render(request, AddPersonForm(), invited=person)


@require_POST
@administrators(Permission.CHANGE_PEOPLE)
def change_person(request: Request, pk: int) -> HttpResponse:
    """Apply one of people.CHANGES to a user."""
    change = request.POST.get("do", "")
    person, refusal = people.change_person(request, pk, change)
    if refusal:
        messages.error(request, refusal)
    else:
        messages.success(request, f"{person}: {change.replace('_', ' ')}, done.")
    return redirect("list_people")


class ChoosePassword(PasswordResetConfirmView):
    """The page behind the link. Django invalidates the link once used, and after PASSWORD_RESET_TIMEOUT.

    Users of the identity provider can't set a password here, even with an older link.
    """

    template_name = "people/choose_password.html"
    success_url = reverse_lazy("sign_in")

    def get_user(self, uidb64: str) -> Any:
        """Return the user if they may choose a password."""
        user = super().get_user(uidb64)
        return None if user is None or not user.is_active or hasattr(user, "identity") else user

    def form_valid(self, form: Any) -> HttpResponse:
        """Store the password and end the user's sessions."""
        events.record_change("choose_password", self.request, form.user)
        sessions.end_all(form.user)
        messages.success(self.request, "Your password is set. You can sign in with it now.")
        return super().form_valid(form)


choose_password = anyone(ChoosePassword.as_view())


def _render(request: Request, form: AddPersonForm, invited: Any = None) -> HttpResponse:
    query = people.search_query(request)
    page = Paginator(people.search_people(query), people.PAGE_SIZE).get_page(request.GET.get("page"))
    facts = {"form": form, "page": page, "people": people.with_roles(page.object_list), "q": query}
    if invited:
        facts |= {"invited": invited, "link": _link(invited), "hours": settings.PASSWORD_RESET_TIMEOUT // 3600}
    return render(request, "people/list.html", facts, status=INVALID_FORM_STATUS if form.is_bound else 200)


def _link(person: Any) -> str:
    uid, token = urlsafe_base64_encode(force_bytes(person.pk)), default_token_generator.make_token(person)
    return f"{settings.SITE_ORIGIN}{reverse('choose_password', args=[uid, token])}"
