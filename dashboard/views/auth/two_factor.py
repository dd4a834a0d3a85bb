"""The second factor: asked for on the way in, switched on and off on the page “You”."""

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
from dashboard.views.auth.sign_in import too_often
from dashboard.views.forms.submit import INVALID

WRONG_CODE = "This isn’t the current code. Wait for the next one, and check that your phone’s clock is correct."
pages = require_http_methods(["GET", "HEAD", "POST"])


@anyone
@never_cache
@pages
def give_code(request: Request) -> HttpResponse:
    """After the right password: the code of the app, or a recovery code."""
    found = login.pending_login(request)
    if found is None:
        return redirect("sign_in")
    user, to = found
    form = CodeForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        attempt = throttle.start_attempt(request, user.get_username(), CODE)
        if isinstance(attempt, Throttled):
            return too_often(request, attempt)
        if two_factor.verify_code(user, form.cleaned_data["code"]):
            throttle.record_success(attempt)
            return login.complete_login(request, user, to, events.CODE)
        events.record_failed_sign_in(request, user.get_username(), events.CODE)
        form.add_error("code", WRONG_CODE)
    return render(request, "people/give_code.html", {"form": form}, status=INVALID if form.is_bound else 200)


@anyone
@never_cache
@pages
def require_second_factor(request: Request) -> HttpResponse:
    """Where REQUIRE_SECOND_FACTOR is set: after the right password, and before anything else, switch one on."""
    found = login.pending_login(request)
    if found is None or two_factor.is_enabled(found[0]):
        return redirect("sign_in")
    user, to = found
    factor, form = two_factor.pending_secret(user, renew=request.method != "POST"), CodeForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        if answer := _too_many_codes(request, user):
            return answer
        if codes := two_factor.enable(factor, form.cleaned_data["code"]):
            entered = login.complete_login(request, user, to, events.PASSWORD)
            answer = _switched_on(request, user, codes, entered.headers["Location"])
            answer.cookies.update(entered.cookies)
            return answer
        form.add_error("code", WRONG_CODE)
    page = {"form": form, "factor": factor, "picture": two_factor.qr_code(factor), "required": True}
    return render(request, "people/switch_on.html", page, status=INVALID if form.is_bound else 200)


@pages
@signed_in
@sensitive_post_parameters("password")
def switch_on_second_factor(request: Request) -> HttpResponse:
    """Show what the app reads; POST with its first code and the password switches the second factor on."""
    user: Any = request.user
    if not user.has_usable_password():
        raise Http404("You sign in with the identity provider. Set up two-factor authentication there.")
    if two_factor.is_enabled(user):
        return redirect("you")
    factor, form = two_factor.pending_secret(user, renew=request.method != "POST"), SwitchOnForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        attempt = throttle.start_attempt(request, user.get_username(), PASSWORD)
        if isinstance(attempt, Throttled):
            return too_often(request, attempt)
        if not user.check_password(form.cleaned_data["password"]):
            form.add_error("password", "Wrong password.")
        elif codes := two_factor.enable(factor, form.cleaned_data["code"]):
            throttle.record_success(attempt)
            return _switched_on(request, user, codes, "you")
        else:
            form.add_error("code", WRONG_CODE)
    page = {"form": form, "factor": factor, "picture": two_factor.qr_code(factor)}
    return render(request, "people/switch_on.html", page, status=INVALID if form.is_bound else 200)


@require_POST
@signed_in
@sensitive_post_parameters("proof")
def switch_off_second_factor(request: Request) -> HttpResponse:
    if settings.REQUIRE_SECOND_FACTOR:
        messages.error(request, "Nothing was changed. This site requires two-factor authentication.")
        return redirect("you")
    if answer := _not_proven(request):
        return answer
    two_factor.disable(request.user)
    events.record_change("second_factor_off", request, request.user)
    messages.success(request, "Two-factor authentication is off. You now sign in with your password alone.")
    return redirect("you")


@require_POST
@signed_in
@sensitive_post_parameters("proof")
def new_recovery_codes(request: Request) -> HttpResponse:
    if answer := _not_proven(request):
        return answer
    codes = two_factor.new_recovery_codes(request.user)
    events.record_change("new_recovery_codes", request, request.user)
    return render(request, "people/recovery_codes.html", {"codes": codes, "to": "you"})


def _switched_on(request: Request, user: Any, codes: list[str], to: str) -> HttpResponse:
    events.record_change("second_factor_on", request, user)
    return render(request, "people/recovery_codes.html", {"codes": codes, "to": to, "new": True})


def _not_proven(request: Request) -> HttpResponse | None:
    """What to answer to somebody who has not shown once more who they are; None when they have."""
    user: Any = request.user
    if not two_factor.is_enabled(user):
        return redirect("you")
    form = ProofForm(request.POST)
    attempt = throttle.start_attempt(request, user.get_username(), CODE)
    if isinstance(attempt, Throttled):
        return too_often(request, attempt)
    if form.is_valid():
        proof = form.cleaned_data["proof"]
        if two_factor.verify_code(user, proof) or user.check_password(proof):
            throttle.record_success(attempt)
            return None
        form.add_error("proof", "Wrong password or code.")
    return render(request, "people/prove.html", {"form": form, "action": request.path}, status=INVALID)


def _too_many_codes(request: Request, user: Any) -> HttpResponse | None:
    attempt = throttle.start_attempt(request, user.get_username(), CODE)
    return too_often(request, attempt) if isinstance(attempt, Throttled) else None
