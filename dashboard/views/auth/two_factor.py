"""Two-factor authentication: codes at sign-in, and turning it on and off."""

from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from dashboard.access.guards import anyone, signed_in
from dashboard.auth import events, login, throttle, two_factor
from dashboard.auth.throttle import CODE, PASSWORD, Throttled
from dashboard.forms.auth import CodeForm, ProofForm, SwitchOnForm
from dashboard.http.request import Request
from dashboard.views.auth.sign_in import render_throttled
from dashboard.views.forms.submit import INVALID_FORM_STATUS

WRONG_CODE = "This isn’t the current code. Wait for the next one, and check that your phone’s clock is correct."
allow_get_and_post = require_http_methods(["GET", "HEAD", "POST"])


@anyone
@never_cache
@allow_get_and_post
def give_code(request: Request) -> HttpResponse:
    """Ask for a TOTP or recovery code after the password, and complete the sign-in."""
    pending = login.pending_login(request)
    if pending is None:
        return redirect("sign_in")
    user, next_url = pending
    form = CodeForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        attempt = throttle.start_attempt(request, user.get_username(), CODE)
        if isinstance(attempt, Throttled):
            return render_throttled(request, attempt)
        if two_factor.verify_code(user, form.cleaned_data["code"]):
            throttle.record_success(attempt)
            return login.complete_login(request, user, next_url, events.CODE)
        events.record_failed_sign_in(request, user.get_username(), events.CODE)
        form.add_error("code", WRONG_CODE)
    return render(
        request, "people/give_code.html", {"form": form}, status=INVALID_FORM_STATUS if form.is_bound else 200
    )


@anyone
@never_cache
@allow_get_and_post
def require_second_factor(request: Request) -> HttpResponse:
    """Set up two-factor authentication at sign-in, where REQUIRE_SECOND_FACTOR is set."""
    pending = login.pending_login(request)
    if pending is None or two_factor.is_enabled(pending[0]):
        return redirect("sign_in")
    user, next_url = pending
    factor, form = two_factor.pending_secret(user, renew=request.method != "POST"), CodeForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        if throttled := _check_throttle(request, user):
            return throttled
        if codes := two_factor.enable(factor, form.cleaned_data["code"]):
            signed_in_response = login.complete_login(request, user, next_url, events.PASSWORD)
            response = _render_recovery_codes(request, user, codes, signed_in_response.headers["Location"])
            response.cookies.update(signed_in_response.cookies)
            return response
        form.add_error("code", WRONG_CODE)
    page = {"form": form, "factor": factor, "picture": two_factor.qr_code(factor), "required": True}
    return render(request, "people/switch_on.html", page, status=INVALID_FORM_STATUS if form.is_bound else 200)


@allow_get_and_post
@signed_in
@sensitive_post_parameters("password")
def switch_on_second_factor(request: Request) -> HttpResponse:
    """Show the QR code for the app; on POST with a code and the password, turn on two-factor authentication."""
    user: Any = request.user
    if not user.has_usable_password():
        raise Http404("You sign in with the identity provider. Set up two-factor authentication there.")
    if two_factor.is_enabled(user):
        return redirect("you")
    factor, form = two_factor.pending_secret(user, renew=request.method != "POST"), SwitchOnForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        attempt = throttle.start_attempt(request, user.get_username(), PASSWORD)
        if isinstance(attempt, Throttled):
            return render_throttled(request, attempt)
        if not user.check_password(form.cleaned_data["password"]):
            form.add_error("password", "Wrong password.")
        elif codes := two_factor.enable(factor, form.cleaned_data["code"]):
            throttle.record_success(attempt)
            return _render_recovery_codes(request, user, codes, "you")
        else:
            form.add_error("code", WRONG_CODE)
    page = {"form": form, "factor": factor, "picture": two_factor.qr_code(factor)}
    return render(request, "people/switch_on.html", page, status=INVALID_FORM_STATUS if form.is_bound else 200)


@require_POST
@signed_in
@sensitive_post_parameters("proof")
def switch_off_second_factor(request: Request) -> HttpResponse:
    """Turn off two-factor authentication, after the user confirmed their identity."""
    if settings.REQUIRE_SECOND_FACTOR:
        messages.error(request, "Nothing was changed. This site requires two-factor authentication.")
        return redirect("you")
    if response := _check_identity(request):
        return response
    two_factor.disable(request.user)
    events.record_change("second_factor_off", request, request.user)
    messages.success(request, "Two-factor authentication is off. You now sign in with your password alone.")
    return redirect("you")


@require_POST
@signed_in
@sensitive_post_parameters("proof")
def new_recovery_codes(request: Request) -> HttpResponse:
    """Replace the recovery codes, after the user confirmed their identity."""
    if response := _check_identity(request):
        return response
    codes = two_factor.new_recovery_codes(request.user)
    events.record_change("new_recovery_codes", request, request.user)
    return render(request, "people/recovery_codes.html", {"codes": codes, "to": "you"})


def _render_recovery_codes(request: Request, user: Any, codes: list[str], next_url: str) -> HttpResponse:
    events.record_change("second_factor_on", request, user)
    return render(request, "people/recovery_codes.html", {"codes": codes, "to": next_url, "new": True})


def _check_identity(request: Request) -> HttpResponse | None:
    """Return None if the submitted password or code is right, else the response to send instead."""
    user: Any = request.user
    if not two_factor.is_enabled(user):
        return redirect("you")
    form = ProofForm(request.POST)
    attempt = throttle.start_attempt(request, user.get_username(), CODE)
    if isinstance(attempt, Throttled):
        return render_throttled(request, attempt)
    if form.is_valid():
        proof = form.cleaned_data["proof"]
        if two_factor.verify_code(user, proof) or user.check_password(proof):
            throttle.record_success(attempt)
            return None
        form.add_error("proof", "Wrong password or code.")
    return render(request, "people/prove.html", {"form": form, "action": request.path}, status=INVALID_FORM_STATUS)


def _check_throttle(request: Request, user: Any) -> HttpResponse | None:
    """Return None if another attempt is allowed, else the response to send instead."""
    attempt = throttle.start_attempt(request, user.get_username(), CODE)
    return render_throttled(request, attempt) if isinstance(attempt, Throttled) else None
