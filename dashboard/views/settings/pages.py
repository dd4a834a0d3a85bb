"""What the pages of an account's settings have in common: one form about one row, tried, stored or deleted."""

from typing import Any

from django.contrib import messages
from django.db import transaction
from django.http import HttpResponse
from django.shortcuts import redirect, render

from dashboard.audit.record import note_details, record_entry
from dashboard.forms.fields.secret import SettingsForm
from dashboard.http.request import Request, client_ip
from dashboard.views.forms.submit import INVALID
from deployments.accounts.connection_tests import ConnectionTestResult
from deployments.live import events


def write_settings(
    request: Request, form: SettingsForm, template: str, *, done: str, context: dict[str, Any] | None = None
) -> HttpResponse:
    """Show the form, or store what it says and lead to the page called `done`; an invalid form comes back with 422."""
    if request.method == "POST" and form.is_valid():
        row = store(request, form)
        messages.success(request, f"“{row}” is stored.")
        return redirect(done, getattr(row, "account", row).name)
    page = {"form": form, "said": "Not saved.", **(context or {})}
    return render(request, template, page, status=INVALID if form.is_bound else 200)


def store(request: Request, form: SettingsForm) -> Any:
    """The row of a valid form, stored; who looks at the account sees it."""
    before, after = form.changes()
    row: Any = form.save_by(request.user.get_username())
    account = getattr(row, "account", row)
    note_details(request, target=row, before=before, after=after)
    transaction.on_commit(lambda: events.publish_account(account.pk), robust=True)
    return row


def record_trial(request: Request, action: str, row: Any, trial: ConnectionTestResult, via: str = "page") -> None:
    """A connection test changes nothing, and yet it sends a secret: who made it, and what came of it."""
    account = request.account
    record_entry(
        action,
        actor=request.user.get_username(),
        account_id=account.pk,
        account_name=account.name,
        target=str(row),
        address=client_ip(request),
        after={"works": trial.succeeded, "says": trial.message},
        via=via,
    )


def show_trial(
    request: Request, form: SettingsForm, trial: ConnectionTestResult | None, template: str, context: dict[str, Any]
) -> HttpResponse:
    """What came of a connection test; None: the form was not fit for one. For htmx the result alone.

    What was typed stays in the form, except for secrets.
    """
    if trial is not None:
        name = request.resolver_match.url_name or "" if request.resolver_match else ""
        record_trial(request, name, form.instance, trial)
    page = {"form": form, "trial": trial, "tried": True, "said": "The connection wasn’t tested.", **context}
    status = 200 if trial is not None else INVALID
    if request.htmx:
        return render(request, "settings/_trial.html", page, status=status)
    return render(request, template, page, status=status)
