"""What services answer and print, and what builds print."""

import json
from uuid import UUID

from django.http import HttpResponse, JsonResponse
from django.views.decorators.debug import sensitive_variables

from dashboard.access.permissions import Permission
from dashboard.actions.scoring import ask
from dashboard.api.errors import Problem, wrong
from dashboard.api.guards import ApiRequest, requires
from dashboard.api.openapi.declare import Schema, declare
from dashboard.api.openapi.resources import Score, ScoringKey
from dashboard.api.parsing import only, read_object
from dashboard.audit.record import note_details
from dashboard.forms.resources.console import ConsoleForm
from dashboard.views.forms.console import scored_service
from dashboard.views.forms.operation import operation_of
from dashboard.views.forms.service import service_of
from dashboard.views.resources.logs import PLAIN, progress, read_whole
from deployments.live import events
from deployments.models import HostingAccount

AFTER: dict[str, Schema] = {"after": {"type": "string", "description": "The X-Log-Position of an earlier response."}}
POSITION = {
    "X-Log-Position": "The position after the last line, for `after`.",
    "X-Log-End": "Set once no more lines will follow.",
}


@requires(Permission.USE_SERVICE, changes=False)
@declare(Score, any_json=True)
@sensitive_variables("service")
def test_service(request: ApiRequest, account: HostingAccount, pk: int) -> HttpResponse:
    """Send a test request to the service. The body is any JSON value, and the response body is in `answer`."""
    service = scored_service(account, pk)
    try:
        form = ConsoleForm({"body": request.body.decode()})
    except UnicodeDecodeError:
        raise Problem(422, "The body isn’t valid UTF-8.") from None
    if not form.is_valid():
        raise wrong("body", " ".join(map(str, form.errors["body"])))
    answer = ask(service.scoring_uri, service.scoring_key, form.cleaned_data["body"])
    score: Score = {
        "status": answer.status,
        "problem": answer.problem,
        "milliseconds": round(answer.milliseconds, 1),
        "answer": _as_json(answer.text),
        "cut": answer.cut,
    }
    return JsonResponse(score)


@requires(Permission.USE_SERVICE)
@declare(ScoringKey)
@sensitive_variables("service")
def show_key(request: ApiRequest, account: HostingAccount, pk: int) -> HttpResponse:
    """Return the primary scoring key of the service."""
    only(read_object(request), ())
    service = scored_service(account, pk)
    note_details(request, target=service)
    key: ScoringKey = {"scoring_uri": service.scoring_uri, "key": service.scoring_key or ""}
    return JsonResponse(key)


@requires(Permission.SEE)
@declare(str, query=AFTER, headers=POSITION)
def operation_log(request: ApiRequest, account: HostingAccount, pk: UUID) -> HttpResponse:
    """Return the log of an operation as text. With `after`, only the lines since that position."""
    operation = operation_of(account, pk)
    events.record_log_interest("operation", operation.pk)
    return _log(request, events.operation_log_key(operation), not operation.is_open)


@requires(Permission.SEE)
@declare(str, query=AFTER, headers=POSITION)
def service_log(request: ApiRequest, account: HostingAccount, pk: int) -> HttpResponse:
    """Return the log of a service as text. With `after`, only the lines since that position."""
    service = service_of(account, pk)
    events.record_log_interest("service", service.pk)
    return _log(request, events.service_log_key(service), service.vanished_at is not None)


def _log(request: ApiRequest, key: str, ended: bool) -> HttpResponse:
    part = read_whole(key, request.GET.get("after", ""))
    text = "".join(f"{line}\n" for line in part.lines)
    return HttpResponse(text, content_type=PLAIN, headers=progress(part, ended))


def _as_json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
