"""The page “Your account”: roles, sessions, password and two-factor authentication."""

from typing import Any

from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from dashboard.access import guards
from dashboard.access.guards import signed_in
from dashboard.access.models import Membership
from dashboard.access.permissions import ADMINISTRATOR
from dashboard.auth import events, sessions, throttle, two_factor
from dashboard.auth.models import RecoveryCode
from dashboard.auth.throttle import Throttled
from dashboard.forms.auth import NewPasswordForm, ProofForm
from dashboard.http.request import Request
from dashboard.views.auth.sign_in import render_throttled
from dashboard.views.forms.submit import INVALID_FORM_STATUS


@require_safe
@signed_in
def you(request: Request) -> HttpResponse:
    """Show the user's roles, sessions and sign-in settings."""
    user: Any = request.user
    page = {
        "roles": _roles(user),
        "sessions": [
            {"row": row, "id": sessions.public_id(row), "this": row.session_key == request.session.session_key}
            for row in sessions.open_sessions(user)
        ],
        "has_password": user.has_usable_password(),
        "identity": getattr(user, "identity", None),
        "second_factor": two_factor.is_enabled(user),
        "codes_left": RecoveryCode.objects.filter(user=user).count(),
        "proof": ProofForm(),
    }
    return render(request, "people/you.html", page)


@require_POST
@signed_in
def end_session(request: Request, session: str) -> HttpResponse:
    """End one of the user's other sessions. Its event streams end within half a minute."""
    target = next((row for row in sessions.open_sessions(request.user) if sessions.public_id(row) == session), None)
    if target is None:
        raise Http404("This session has already ended.")
    if target.session_key == request.session.session_key:
        raise Http404("To end this session, sign out.")
    target.delete()
    events.record_change("end_session", request, request.user, before={"from": target.address})
    messages.success(request, f"The session from {target.address or 'an unknown address'} has ended.")
    return redirect("you")


@require_POST
@signed_in
def end_other_sessions(request: Request) -> HttpResponse:
    """End all sessions of the user except this one."""
    count = sessions.end_all(request.user, keep=request.session.session_key)
    events.record_change("end_other_sessions", request, request.user, before={"sessions": count})
    messages.success(request, "All your other sessions have ended.")
    return redirect("you")


@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
@sensitive_post_parameters("old_password", "new_password1", "new_password2")
def change_password(request: Request) -> HttpResponse:
    """Show the form; on POST, change the password and end all other sessions."""
    user: Any = request.user
    if not user.has_usable_password():
        raise Http404("You sign in with the identity provider. Change your password there.")
    form = NewPasswordForm(user, request.POST or None)
    if request.method == "POST":
        attempt = throttle.start_attempt(request, user.get_username())
        if isinstance(attempt, Throttled):
            return render_throttled(request, attempt)
        if "old_password" not in form.errors:
            throttle.record_success(attempt)
        if form.is_valid():
            form.save()
            update_session_auth_hash(request, user)
            sessions.end_all(user, keep=request.session.session_key)
            events.record_change("change_password", request, user, after={"password": "changed"})
            messages.success(request, "Password changed. All your other sessions have ended.")
            return redirect("you")
    return render(
        request, "people/change_password.html", {"form": form}, status=INVALID_FORM_STATUS if form.is_bound else 200
    )


def _roles(user: Any) -> list[dict[str, Any]]:
    """Return the user's accounts, each with the role and its source: the site, or a group of the identity provider."""
    members = {member.account_id: member for member in Membership.objects.filter(user=user)}
    roles = []
    for account in guards.visible_accounts(user):
        member = members.get(account.pk)
        role = ADMINISTRATOR if user.is_superuser else member.get_role_display() if member else ""
        source = member.get_source_display() if member and not user.is_superuser else ""
        roles.append({"account": account, "role": role, "source": source})
    return roles
