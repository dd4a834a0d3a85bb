"""The last steps of every way in: the second factor where there is one, then the session.

Between the right password and the second factor somebody is nobody yet: their session says only whom they may become.
"""

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model, login
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.utils import timezone

from dashboard.access.guards import own_path
from dashboard.auth import events, sessions, throttle, two_factor

BACKEND = "django.contrib.auth.backends.ModelBackend"
HALF_IN = "_half_in"  # in the session: whose password was right
MINUTES = 10  # for the second factor


def after_password(request: HttpRequest, user: Any, to: str, how: str = events.PASSWORD) -> HttpResponse:
    """Go on after a right password: in, or to the second factor, or to switching one on."""
    has_one = two_factor.is_on(user)
    if not has_one and not settings.REQUIRE_SECOND_FACTOR:
        return enter(request, user, to, how)
    request.session.cycle_key()
    until = timezone.now() + timedelta(minutes=MINUTES)
    proof = user.get_session_auth_hash()  # another password meanwhile, and this was for nothing
    request.session[HALF_IN] = {"user": user.pk, "proof": proof, "until": until.timestamp(), "to": to}
    return redirect("give_code" if has_one else "require_second_factor")


def half_in(request: HttpRequest) -> tuple[Any, str] | None:
    """Who has given the right password in this session within ten minutes, and where they wanted to go."""
    found = request.session.get(HALF_IN)
    if not found or found["until"] < timezone.now().timestamp():
        return None
    user: Any = get_user_model().objects.filter(pk=found["user"], is_active=True).first()
    if user is None or user.get_session_auth_hash() != found["proof"]:
        return None
    return user, found["to"]


def enter(request: HttpRequest, user: Any, to: str, how: str) -> HttpResponse:
    """Sign `user` in and lead them where they wanted to go."""
    name = user.get_username()
    request.session.pop(HALF_IN, None)
    login(request, user, backend=BACKEND)
    sessions.begin(request)
    events.signed_in(request, user, how)
    response = HttpResponseRedirect(to)
    if how != events.PROVIDER:
        throttle.remember(request, response, name)
    return response


def wanted(request: HttpRequest) -> str:
    """Where to go after signing in: the page of this site that `next` names, else the first page."""
    return own_path(request, request.POST.get("next") or request.GET.get("next", ""))
