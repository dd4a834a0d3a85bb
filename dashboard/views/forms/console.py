"""The test console of a service, and its key."""

import json
import shlex

from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_POST

from dashboard.access.guards import requires
from dashboard.access.permissions import Permission
from dashboard.actions.scoring import ask, example_body
from dashboard.audit.record import note_details
from dashboard.forms.resources.console import ConsoleForm
from dashboard.http.request import Request
from dashboard.views.forms.submit import INVALID
from deployments.models import HostingAccount, Service

LONGEST_EXAMPLE = 2000  # characters


def scored_service(account: HostingAccount, pk: int) -> Service:
    """The service with its scoring URL and key, or 404 where there is nothing to ask."""
    rows = Service.objects.filter(account=account, vanished_at=None).exclude(scoring_uri="")
    return get_object_or_404(rows, pk=pk)


def call_with(body: str) -> dict[str, str] | None:
    """How curl and Python write this request body; None where it is too long for an example, or no JSON."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    flat = json.dumps(value, ensure_ascii=False)
    return {"curl": shlex.quote(flat), "python": repr(value)} if len(flat) <= LONGEST_EXAMPLE else None


@never_cache
@requires(Permission.USE_SERVICE, changes=False)
@sensitive_variables("service")
def test_service(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    """GET fills the console with the service's example; POST sends the body and shows the answer."""
    service = scored_service(account, pk)
    form, answer = ConsoleForm(request.POST or None), None
    if request.method != "POST":
        form = ConsoleForm(initial={"body": example_body(service.scoring_uri, service.scoring_key)})
    elif form.is_valid():
        answer = ask(service.scoring_uri, service.scoring_key, form.cleaned_data["body"])
    template = "services/_console.html" if request.htmx else "services/test_service.html"
    page = {"service": service, "form": form, "answer": answer, "asked": request.method != "POST"}
    page["call"] = call_with(str(form["body"].value() or ""))
    return render(request, template, page, status=INVALID if form.is_bound and form.errors else 200)


@never_cache
@require_POST
@requires(Permission.USE_SERVICE)
@sensitive_variables("service")
def show_key(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    """The service's primary key, for whoever may call the service from a program of theirs."""
    service = scored_service(account, pk)
    note_details(request, target=service)
    template = "services/_key.html" if request.htmx else "services/show_key.html"
    return render(request, template, {"service": service, "key": service.scoring_key or ""})
