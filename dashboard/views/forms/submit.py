"""One way for every form that becomes an operation: look things up, preview, send."""

import json
from collections.abc import Callable
from typing import Any

from django.core.exceptions import ValidationError
from django.forms import Form
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render

from dashboard.audit.record import PREVIEW, note_details
from dashboard.files.store import mask_keys
from dashboard.forms import snippets
from dashboard.forms.resources.operation import OperationForm
from dashboard.http.request import Request
from deployments.models import HostingAccount, Operation
from deployments.operations import submit

INVALID = 422


def write(
    request: Request,
    form: OperationForm,
    template: str,
    *,
    done: Callable[[Operation], str],
    context: dict[str, Any] | None = None,
    panel: str = "_shared/_preview.html",
) -> HttpResponse:
    """Answer a request to the page of `form`.

    POST sends the form and leads to the URL that `done` gives for the new operation; an invalid form comes back with
    status 422. With do=preview nothing is sent: the answer shows what would be (HTMX: only that `panel`).
    """
    page = {"form": form, **(context or {})}
    if request.method != "POST":
        return render(request, template, page)
    if request.POST.get("do") == PREVIEW:
        return _show_preview(request, form, template, page, panel)
    if form.is_valid() and (operation := form.submit(request.user.get_username())):
        note_operation(request, operation)
        return redirect(done(operation))
    return render(request, template, page, status=INVALID)


def note_operation(request: Request, operation: Operation) -> None:
    """For the audit: what was asked for, in the words of the form, rows by number, without access keys."""
    after = {"operation": str(operation.pk), **submit.redact_keys(operation.body)}
    note_details(request, target=operation.resource, after=after)


def picker_rows(request: Request, form: OperationForm) -> HttpResponse:
    """The rows of the picker that ?part= names, for what the rest of the query says is picked and sought."""
    picker = form.pickers.get(request.GET["part"])
    if picker is None:
        raise Http404("This form has no such field.")
    return render(request, "_shared/_picker_rows.html", {"picker": picker, "form": form})


def previewed(form: OperationForm) -> dict[str, Any]:
    """What the preview panel shows of a bound form: `json`, `notes` and `command`, or the `missing` fields."""
    body = form.preview() if form.is_valid() else None
    if body is None:
        return missing(form)
    text = mask_keys(json.dumps(body, indent=2, ensure_ascii=False))
    return {"json": text, "notes": form.notes(), "command": snippets.of_form(form)}


def missing(form: Form) -> dict[str, Any]:
    """What the preview panel says of a form that is not complete."""
    return {"missing": [(_label(form, name), errors) for name, errors in form.errors.items()]}


def chosen_in_link(request: Request, *names: str) -> dict[str, list[str]]:
    """The rows that a link to a form has picked already: `?image=3` is {"image": ["3"]}."""
    return {name: request.GET.getlist(name) for name in names if name in request.GET}


def cloned(request: Request, account: HostingAccount, kind: str) -> dict[str, Any]:
    """What a form starts with when ?clone= names an operation of this kind; {} without, 404 for any other."""
    pk = request.GET.get("clone")
    if not pk:
        return {}
    try:
        return Operation.objects.get(account=account, kind=kind, pk=pk).body
    except (Operation.DoesNotExist, ValidationError):
        raise Http404("This operation doesn’t exist.") from None


def _show_preview(
    request: Request, form: OperationForm, template: str, page: dict[str, Any], panel: str
) -> HttpResponse:
    page = {**page, "preview": previewed(form)}
    if request.htmx:
        return render(request, panel, {**page, "oob": True})
    form.unchecked()
    return render(request, template, page)


def _label(form: Form, name: str) -> str:
    return str(form[name].label) if name in form.fields else ""
