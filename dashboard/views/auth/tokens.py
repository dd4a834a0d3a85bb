"""The page of API tokens: the user's own, and for administrators all."""

from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_POST, require_safe

from dashboard.access.guards import signed_in
from dashboard.audit.record import note_details, run_audited
from dashboard.auth import tokens
from dashboard.auth.models import ApiToken
from dashboard.forms.site.token import EVERY_ACCOUNT, CreateTokenForm
from dashboard.http.request import Request
from dashboard.views.forms.submit import INVALID_FORM_STATUS
from deployments.models import HostingAccount


@require_safe
@signed_in
def list_tokens(request: Request) -> HttpResponse:
    """List the tokens, with the form for a new one."""
    return _render_page(request, CreateTokenForm(request.user))


@require_POST
@signed_in
def create_token(request: Request) -> HttpResponse:
    """Create a token and show its text, which appears only in this response."""
    return run_audited(request, lambda: _create(request))


@sensitive_variables("text")
def _create(request: Request) -> HttpResponse:
    form = CreateTokenForm(request.user, request.POST)
    if not form.is_valid():
        return _render_page(request, form, status=INVALID_FORM_STATUS)
    token, text = form.save()
    note_details(request, target=f"{token} of {token.owner}", after=_audit_details(token))
    return _render_page(request, CreateTokenForm(request.user), made=token, text=text)


@require_POST
@signed_in
def revoke_token(request: Request, pk: int) -> HttpResponse:
    """Revoke a token."""
    token = get_object_or_404(_visible_tokens(request.user), pk=pk)

    def act() -> HttpResponse:
        tokens.revoke(token)
        note_details(request, target=f"{token} of {token.owner}", before=_audit_details(token))
        return redirect("list_tokens")

    return run_audited(request, act)


def _render_page(request: Request, form: CreateTokenForm, *, status: int = 200, **created: Any) -> HttpResponse:
    rows = list(_visible_tokens(request.user))
    names = dict(HostingAccount.objects.filter(pk__in={row.account_id for row in rows}).values_list("pk", "name"))
    for row in rows:
        row.where = names.get(row.account_id, "a deleted account") if row.account_id else EVERY_ACCOUNT  # type: ignore[attr-defined]
        row.dead = row.inactive_reason()  # type: ignore[attr-defined]
    return render(request, "tokens/list.html", {"form": form, "tokens": rows, **created}, status=status)


def _visible_tokens(user: Any) -> QuerySet[ApiToken]:
    """Return the user's own tokens; all tokens for an administrator."""
    rows = ApiToken.objects.select_related("owner")
    return rows if user.is_superuser else rows.filter(owner=user)


def _audit_details(token: ApiToken) -> dict[str, Any]:
    return {"scope": token.scope, "account": token.account_id, "expires": token.expires_at.date().isoformat()}
