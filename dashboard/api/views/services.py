"""Routes that test services, show scoring keys, and return logs."""

import json
from uuid import UUID

from django.http import HttpResponse, JsonResponse
from django.views.decorators.debug import sensitive_variables

from dashboard.access.permissions import Permission
from dashboard.actions.logs import PLAIN_TEXT, follow_operation_log, follow_service_log, log_headers, log_text, read_log
from dashboard.actions.operations import operation_or_404
from dashboard.actions.scoring import ScoringTarget, score
from dashboard.actions.services import scored_service_or_404, service_or_404
from dashboard.api.errors import ApiError, invalid_field
from dashboard.api.guards import ApiRequest, requires
from dashboard.api.openapi.declare import Schema, declare
from dashboard.api.openapi.resources import Score, ScoringKey
from dashboard.api.parsing import check_fields, read_object
from dashboard.audit.record import note_details
from dashboard.forms.resources.console import ConsoleForm
from deployments.accounts.known_secrets import known_secrets
from deployments.live import events
from deployments.models import HostingAccount

AFTER: dict[str, Schema] = {"after": {"type": "string", "description": "The X-Log-Position of an earlier response."}}
POSITION_HEADERS = {
    "X-Log-Position": "The position after the last line, for `after`.",
    "X-Log-End": "Set once no more lines will follow.",
}


@requires(Permission.USE_SERVICE, changes=False)
@declare(Score, any_json=True)
@sensitive_variables("service")
def test_service(request: ApiRequest, account: HostingAccount, pk: int) -> HttpResponse:
    """Send a test request to the service. The body is any JSON value, and the response body is in `answer`."""
    service = scored_service_or_404(account, pk)
    try:
        form = ConsoleForm({"body": request.body.decode("utf-8-sig")})
    except UnicodeDecodeError:
        raise ApiError(422, "The body isn’t valid UTF-8.") from None
    if not form.is_valid():
        raise invalid_field("body", " ".join(map(str, form.errors["body"])))
    target = ScoringTarget(account.base_url, service.scoring_uri, service.scoring_key, known_secrets(account).all)
    result = score(target, form.cleaned_data["body"])
    body: Score = {
        "status": result.status,
        "problem": result.problem,
        "milliseconds": round(result.milliseconds, 1),
        "answer": _as_json(result.text),
        "cut": result.is_cut,
    }
    return JsonResponse(body)


@requires(Permission.USE_SERVICE)
@declare(ScoringKey)
@sensitive_variables("service")
def show_key(request: ApiRequest, account: HostingAccount, pk: int) -> HttpResponse:
    """Return the primary scoring key of the service."""
    check_fields(read_object(request), ())
    service = scored_service_or_404(account, pk)
    note_details(request, target=service)
    key: ScoringKey = {"scoring_uri": service.scoring_uri, "key": service.scoring_key or ""}
    return JsonResponse(key)


@requires(Permission.SEE)
@declare(str, query=AFTER, headers=POSITION_HEADERS)
def operation_log(request: ApiRequest, account: HostingAccount, pk: UUID) -> HttpResponse:
    """Return the log of an operation as text. With `after`, only the lines since that position.

    The first request reads the log at the server, for up to three seconds. While requests follow, workers read it.
    """
    operation = operation_or_404(account, pk)
    follow_operation_log(operation)
    return _log_response(request, events.operation_log_key(operation), not operation.is_open)


@requires(Permission.SEE)
@declare(str, query=AFTER, headers=POSITION_HEADERS)
def service_log(request: ApiRequest, account: HostingAccount, pk: int) -> HttpResponse:
    """Return the log of a service as text. With `after`, only the lines since that position.

    The first request reads the log at the server, for up to three seconds. While requests follow, workers read it.
    """
    service = service_or_404(account, pk)
    follow_service_log(service)
    return _log_response(request, events.service_log_key(service), service.vanished_at is not None)


def _log_response(request: ApiRequest, key: str, ended: bool) -> HttpResponse:
    part = read_log(key, request.GET.get("after", ""))
    return HttpResponse(log_text(part), content_type=PLAIN_TEXT, headers=log_headers(part, ended))


def _as_json(text: str) -> object:
    """Return the value of a JSON text; any other text unchanged."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
