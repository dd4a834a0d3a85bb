"""The last steps of every sign-in: two-factor authentication if enabled, then the session.

Until the second factor is verified, the user is not signed in. The session only stores the pending login.
"""

from datetime import timedelta

from django.conf import settings
from django.contrib.auth import get_user_model, login
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.utils import timezone

from dashboard.access.guards import local_path
from dashboard.auth import events, sessions, throttle, two_factor

BACKEND = "django.contrib.auth.backends.ModelBackend"
PENDING_LOGIN = "_half_in"  # session key
PENDING_MINUTES = 10


def continue_login(request: HttpRequest, user: User, path: str, method: str = events.PASSWORD) -> HttpResponse:
    """Continue after a correct password: sign in, ask for the second factor, or require setting one up."""
    is_enabled = two_factor.is_enabled(user)
    if not is_enabled and not settings.REQUIRE_SECOND_FACTOR:
        return complete_login(request, user, path, method)
    request.session.cycle_key()
    until = timezone.now() + timedelta(minutes=PENDING_MINUTES)
    proof = user.get_session_auth_hash()  # a changed password invalidates the pending login
    request.session[PENDING_LOGIN] = {"user": user.pk, "proof": proof, "until": until.timestamp(), "to": path}
    return redirect("give_code" if is_enabled else "require_second_factor")


def pending_login(request: HttpRequest) -> tuple[User, str] | None:
    """Return the user of the pending login and the path to redirect to, or None if it expired."""
    pending = request.session.get(PENDING_LOGIN)
    if not pending or pending["until"] < timezone.now().timestamp():
        return None
    user = get_user_model().objects.filter(pk=pending["user"], is_active=True).first()
    if user is None or user.get_session_auth_hash() != pending["proof"]:
        return None
    return user, pending["to"]


def complete_login(request: HttpRequest, user: User, path: str, method: str) -> HttpResponse:
    """Sign the user in and redirect to `path`."""
    name = user.get_username()
    request.session.pop(PENDING_LOGIN, None)
    login(request, user, backend=BACKEND)
    sessions.start(request)
    events.record_sign_in(request, user, method)
    response = HttpResponseRedirect(path)
    if method != events.PROVIDER:
        throttle.remember_device(request, response, name)
    return response


def next_url(request: HttpRequest) -> str:
    """Return the page to show after sign-in: the local path in `next`, else the home page."""
    return local_path(request, request.POST.get("next") or request.GET.get("next", ""))
