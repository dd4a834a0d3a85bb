"""Signing in and out, and the choice of a color theme."""

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
from dashboard.views.forms.submit import INVALID_FORM_STATUS

THEME_COOKIE_SECONDS = 365 * 24 * 3600
MINUTES_FROM_SECONDS = 90  # longer waits are shown in minutes


@anyone
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@sensitive_post_parameters("password")
def sign_in(request: Request) -> HttpResponse:
    """Show the sign-in page; on POST, check the user name and password."""
    next_url = login.next_url(request)
    if request.user.is_authenticated:
        return HttpResponseRedirect(next_url)
    if request.method != "POST" or not settings.PASSWORD_SIGN_IN:
        return _render_page(request, SignInForm(request), next_url, 403 if request.method == "POST" else 200)
    name = request.POST.get("username", "")
    attempt = throttle.start_attempt(request, name)
    if isinstance(attempt, Throttled):
        return render_throttled(request, attempt)
    form = SignInForm(request, request.POST)
    if not form.is_valid():
        events.record_failed_sign_in(request, name, events.PASSWORD)
        return _render_page(request, form, next_url, INVALID_FORM_STATUS)
    throttle.record_success(attempt)
    return login.continue_login(request, form.get_user(), next_url)


def _render_page(request: Request, form: SignInForm, next_url: str, status: int) -> HttpResponse:
    page = {
        "form": form,
        "next": next_url,
        "by_password": settings.PASSWORD_SIGN_IN,
        "provider": settings.OIDC_NAME if settings.OIDC_ISSUER else "",
    }
    return render(request, "people/sign_in.html", page, status=status)


def render_throttled(request: Request, throttled: Throttled) -> HttpResponse:
    """Respond with 429 and the time to wait before the next attempt."""
    seconds = throttled.seconds
    wait = f"{seconds} seconds" if seconds < MINUTES_FROM_SECONDS else f"{-(-seconds // 60)} minutes"
    response = render(request, "people/too_often.html", {"wait": wait}, status=429)
    response.headers["Retry-After"] = str(seconds)
    return response


@anyone
@require_POST
def sign_out(request: Request) -> HttpResponse:
    """End the session, and tell the browser to delete its cache and storage of the site."""
    if request.user.is_authenticated:
        events.record_sign_out(request, request.user)
    logout(request)
    response = redirect("sign_in")
    response.headers["Clear-Site-Data"] = '"cache", "storage"'
    return response


@anyone
@require_POST
def choose_theme(request: Request) -> HttpResponse:
    """Store the color theme in a cookie and redirect to the page it was chosen on."""
    response = HttpResponseRedirect(local_path(request, request.POST.get("next", "")))
    chosen = request.POST.get("theme", "")
    if chosen in {"light", "dark"}:
        response.set_cookie(
            "theme",
            chosen,
            max_age=THEME_COOKIE_SECONDS,
            path=settings.SESSION_COOKIE_PATH,
            samesite="Lax",
            httponly=True,
            secure=settings.SECURE,
        )
    else:
        response.delete_cookie("theme", path=settings.SESSION_COOKIE_PATH, samesite="Lax")
    return response
