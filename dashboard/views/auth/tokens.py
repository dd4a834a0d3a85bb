"""Tokens for the JSON API: one's own, and for administrators everybody's."""

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
from dashboard.views.forms.submit import INVALID
from deployments.models import HostingAccount


@require_safe
@signed_in
def list_tokens(request: Request) -> HttpResponse:
    return _page(request, CreateTokenForm(request.user))


@require_POST
@signed_in
def create_token(request: Request) -> HttpResponse:
    """Make a token and show it, this once: it stands in this answer and nowhere else."""
    return run_audited(request, lambda: _create(request))


@sensitive_variables("text")
def _create(request: Request) -> HttpResponse:
    form = CreateTokenForm(request.user, request.POST)
    if not form.is_valid():
        return _page(request, form, status=INVALID)
    token, text = form.save()
    note_details(request, target=f"{token} of {token.owner}", after=_facts(token))
    return _page(request, CreateTokenForm(request.user), made=token, text=text)


@require_POST
@signed_in
def revoke_token(request: Request, pk: int) -> HttpResponse:
    token = get_object_or_404(_visible(request.user), pk=pk)

    def act() -> HttpResponse:
        tokens.revoke(token)
        note_details(request, target=f"{token} of {token.owner}", before=_facts(token))
        return redirect("list_tokens")

    return run_audited(request, act)


def _page(request: Request, form: CreateTokenForm, *, status: int = 200, **made: Any) -> HttpResponse:
    rows = list(_visible(request.user))
    names = dict(HostingAccount.objects.filter(pk__in={row.account_id for row in rows}).values_list("pk", "name"))
    for row in rows:
        row.where = names.get(row.account_id, "a deleted account") if row.account_id else EVERY_ACCOUNT  # type: ignore[attr-defined]
        row.dead = row.inactive_reason()  # type: ignore[attr-defined]
    return render(request, "tokens/list.html", {"form": form, "tokens": rows, **made}, status=status)


def _visible(user: Any) -> QuerySet[ApiToken]:
    """One's own tokens; for administrators all of them."""
    rows = ApiToken.objects.select_related("owner")
    return rows if user.is_superuser else rows.filter(owner=user)


def _facts(token: ApiToken) -> dict[str, Any]:
    return {"scope": token.scope, "account": token.account_id, "expires": token.expires_at.date().isoformat()}
