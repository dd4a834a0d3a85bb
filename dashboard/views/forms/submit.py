"""Handling of the forms that request operations: pickers, preview and submission."""

import json
from collections.abc import Callable
from typing import Any

from django.core.exceptions import ValidationError
from django.forms import Form
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render

from dashboard.actions.operations import note_operation
from dashboard.audit.record import PREVIEW
from dashboard.files.store import mask_keys
from dashboard.forms import snippets
from dashboard.forms.resources.operation import OperationForm
from dashboard.http.request import Request
from deployments.models import HostingAccount, Operation

INVALID_FORM_STATUS = 422


def handle_operation_form(
    request: Request,
    form: OperationForm,
    template: str,
    *,
    success_url: Callable[[Operation], str],
    context: dict[str, Any] | None = None,
    preview_template: str = "_shared/_preview.html",
) -> HttpResponse:
    """Respond to a request to the page of `form`, which `template` renders with `context`.

    A valid POST requests the operation and redirects to `success_url(operation)`; an invalid one shows the form with
    status 422. With `do=preview`, nothing is requested: the response shows the request as JSON. For htmx it is only
    `preview_template`.
    """
    page = {"form": form, **(context or {})}
    if request.method != "POST":
        return render(request, template, page)
    if request.POST.get("do") == PREVIEW:
        return _show_preview(request, form, template, page, preview_template)
    if form.is_valid() and (operation := form.submit(request.user.get_username())):
        note_operation(request, operation)
        return redirect(success_url(operation))
    return render(request, template, page, status=INVALID_FORM_STATUS)


def render_picker_rows(request: Request, form: OperationForm) -> HttpResponse:
    """Render the rows of the picker that `?part=` names, for the picked rows and the search in the query string."""
    picker = form.pickers.get(request.GET["part"])
    if picker is None:
        raise Http404("This form has no such field.")
    return render(request, "_shared/_picker_rows.html", {"picker": picker, "form": form})


def preview_context(form: OperationForm) -> dict[str, Any]:
    """Return the context of the preview of a bound form: `json`, `notes` and `command`, or the `missing` fields."""
    body = form.preview() if form.is_valid() else None
    if body is None:
        return missing_fields(form)
    text = mask_keys(json.dumps(body, indent=2, ensure_ascii=False))
    return {"json": text, "notes": form.notes(), "command": snippets.build_form_snippet(form)}


def missing_fields(form: Form) -> dict[str, Any]:
    """Return the context of the preview of an incomplete form: labels and errors of the fields."""
    return {"missing": [(_label(form, name), errors) for name, errors in form.errors.items()]}


def initial_from_query(request: Request, *names: str) -> dict[str, list[str]]:
    """Return the rows that a link to a form picks: `?image=3` gives {"image": ["3"]}."""
    return {name: request.GET.getlist(name) for name in names if name in request.GET}


def initial_from_clone(request: Request, account: HostingAccount, kind: str) -> dict[str, Any]:
    """Return the request of the operation that `?clone=` names; {} without it.

    Raise Http404 if the account has no operation of this kind with that id.
    """
    pk = request.GET.get("clone")
    if not pk:
        return {}
    try:
        operation = Operation.objects.get(account=account, kind=kind, pk=pk)
    except (Operation.DoesNotExist, ValidationError):
        raise Http404("This operation doesn’t exist.") from None
    body: dict[str, Any] = operation.body
    return body


def _show_preview(
    request: Request, form: OperationForm, template: str, page: dict[str, Any], preview_template: str
) -> HttpResponse:
    page = {**page, "preview": preview_context(form)}
    if request.htmx:
        return render(request, preview_template, {**page, "oob": True})
    form.clear_errors()
    return render(request, template, page)


def _label(form: Form, name: str) -> str:
    return str(form[name].label) if name in form.fields else ""
