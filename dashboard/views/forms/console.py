"""The test console of a service, and its scoring key."""

import json
import shlex

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_POST

from dashboard.access.guards import requires
from dashboard.access.permissions import Permission
from dashboard.actions.scoring import ScoringTarget, example_body, score
from dashboard.actions.services import scored_service_or_404
from dashboard.audit.record import note_details
from dashboard.forms.resources.console import ConsoleForm
from dashboard.http.request import Request
from dashboard.views.forms.submit import INVALID_FORM_STATUS
from deployments.accounts.known_secrets import known_secrets
from deployments.models import HostingAccount

MAX_EXAMPLE_CHARS = 2000


def body_literals(body: str) -> dict[str, str] | None:
    """Return the request body as written in curl and Python; None if it is too long for an example, or not JSON."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    flat = json.dumps(value, ensure_ascii=False)
    return {"curl": shlex.quote(flat), "python": repr(value)} if len(flat) <= MAX_EXAMPLE_CHARS else None


@never_cache
@requires(Permission.USE_SERVICE, changes=False)
@sensitive_variables("service")
def test_service(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    """Show the console with the service's example request; on POST, send the body and show the response."""
    service = scored_service_or_404(account, pk)
    form, answer = ConsoleForm(request.POST or None), None
    target = ScoringTarget(account.base_url, service.scoring_uri, service.scoring_key, known_secrets(account).all)
    if request.method != "POST":
        form = ConsoleForm(initial={"body": example_body(target)})
    elif form.is_valid():
        answer = score(target, form.cleaned_data["body"])
    template = "services/_console.html" if request.htmx else "services/test_service.html"
    page = {"service": service, "form": form, "answer": answer, "asked": request.method != "POST"}
    page["call"] = body_literals(str(form["body"].value() or ""))
    return render(request, template, page, status=INVALID_FORM_STATUS if form.is_bound and form.errors else 200)


@never_cache
@require_POST
@requires(Permission.USE_SERVICE)
@sensitive_variables("service")
def show_key(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    """Show the primary scoring key of the service."""
    service = scored_service_or_404(account, pk)
    note_details(request, target=service)
    template = "services/_key.html" if request.htmx else "services/show_key.html"
    return render(request, template, {"service": service, "key": service.scoring_key or ""})
