"""Handling of the forms on an account's settings pages: each stores or tests one row."""

from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render

from dashboard.actions.settings import record_connection_test, save_settings
from dashboard.forms.fields.secret import SettingsForm
from dashboard.http.request import Request
from dashboard.views.forms.submit import INVALID_FORM_STATUS
from deployments.accounts.connection_tests import ConnectionTestResult


def handle_settings_form(
    request: Request,
    form: SettingsForm,
    template: str,
    *,
    success_url_name: str,
    context: dict[str, Any] | None = None,
) -> HttpResponse:
    """Show the form; on a valid POST, store its row and redirect to the URL named `success_url_name`.

    An invalid form is shown with status 422.
    """
    if request.method == "POST" and form.is_valid():
        row = save_settings(request, form)
        messages.success(request, f"“{row}” is stored.")
        return redirect(success_url_name, getattr(row, "account", row).name)
    page = {"form": form, "failure_heading": "Not saved.", **(context or {})}
    return render(request, template, page, status=INVALID_FORM_STATUS if form.is_bound else 200)


def render_connection_test(
    request: Request, form: SettingsForm, result: ConnectionTestResult | None, template: str, context: dict[str, Any]
) -> HttpResponse:
    """Render and record the result of a connection test.

    `result` is None if the form was invalid and the test wasn't run. For htmx, render only the result. The form
    shows the submitted values, except for secrets.
    """
    if result is not None:
        name = request.resolver_match.url_name or "" if request.resolver_match else ""
        record_connection_test(request, name, form.instance, result)
    heading = "The connection wasn’t tested."
    page = {"form": form, "test_result": result, "is_test": True, "failure_heading": heading, **context}
    status = 200 if result is not None else INVALID_FORM_STATUS
    if request.htmx:
        return render(request, "settings/_connection_test.html", page, status=status)
    return render(request, template, page, status=status)
