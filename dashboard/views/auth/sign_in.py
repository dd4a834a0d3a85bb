"""Signing in and out, and the reader's choice of colours."""

from django.conf import settings
from django.contrib.auth import logout
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from dashboard.access.guards import anyone, local_path
from dashboard.auth import events, login, throttle
from dashboard.auth.throttle import Throttled
from dashboard.forms.auth import SignInForm
from dashboard.http.request import Request
from dashboard.views.forms.submit import INVALID

A_YEAR = 365 * 24 * 3600  # seconds


@anyone
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@sensitive_post_parameters("password")
def sign_in(request: Request) -> HttpResponse:
    """The page to sign in on; POST tries a name and a password."""
    to = login.next_url(request)
    if request.user.is_authenticated:
        return HttpResponseRedirect(to)
    if request.method != "POST" or not settings.PASSWORD_SIGN_IN:
        return _page(request, SignInForm(request), to, 403 if request.method == "POST" else 200)
    name = request.POST.get("username", "")
    attempt = throttle.start_attempt(request, name)
    if isinstance(attempt, Throttled):
        return too_often(request, attempt)
    form = SignInForm(request, request.POST)
    if not form.is_valid():
        events.record_failed_sign_in(request, name, events.PASSWORD)
        return _page(request, form, to, INVALID)
    throttle.record_success(attempt)
    return login.continue_login(request, form.get_user(), to)


def _page(request: Request, form: SignInForm, to: str, status: int) -> HttpResponse:
    page = {
        "form": form,
        "next": to,
        "by_password": settings.PASSWORD_SIGN_IN,
        "provider": settings.OIDC_NAME if settings.OIDC_ISSUER else "",
    }
    return render(request, "people/sign_in.html", page, status=status)


def too_often(request: Request, refusal: Throttled) -> HttpResponse:
    """429, with the time after which it is worth trying again."""
    seconds = refusal.seconds
    wait = f"{seconds} seconds" if seconds < 90 else f"{-(-seconds // 60)} minutes"
    answer = render(request, "people/too_often.html", {"wait": wait}, status=429)
    answer.headers["Retry-After"] = str(seconds)
    return answer


@anyone
@require_POST
def sign_out(request: Request) -> HttpResponse:
    """End the session, and have the browser forget what it kept of the site."""
    if request.user.is_authenticated:
        events.record_sign_out(request, request.user)
    logout(request)
    response = redirect("sign_in")
    response.headers["Clear-Site-Data"] = '"cache", "storage"'
    return response


@anyone
@require_POST
def choose_theme(request: Request) -> HttpResponse:
    """Keep the choice of colours in a cookie and go back to the page it was made on."""
    response = HttpResponseRedirect(local_path(request, request.POST.get("next", "")))
    chosen = request.POST.get("theme", "")
    if chosen in {"light", "dark"}:
        response.set_cookie("theme", chosen, max_age=A_YEAR, samesite="Lax", httponly=True, secure=settings.SECURE)
    else:
        response.delete_cookie("theme", samesite="Lax")
    return response
