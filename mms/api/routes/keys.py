"""Scoring keys of a service."""

from uuid import UUID

from django.db import transaction
from django.utils import timezone

from mms.api.http import Request, Response, Route
from mms.api.idempotency import create_once, request_identity
from mms.api.routes.services import find_service, live_services
from mms.api.schemas import requests, responses
from mms.models import Operation, Service, State
from mms.services import publish_route
from mms.services.scoring_keys import new_key


def get_keys(request: Request, id: UUID) -> Response:
    service = find_service(id, live_services(request))
    request.record(service.name, id=str(service.id))
    return _keys(service)


def regenerate_keys(request: Request, id: UUID) -> Response:
    """Replace the key named by keyType, or both if none is named, as clients of 2017 expect."""
    body = request.parse_body(requests.RegenerateKeys) if request.body.strip() else requests.RegenerateKeys()
    create_once(request, Operation, lambda: _regenerate(request, id, body))
    service = find_service(id, live_services(request))
    publish_route(service)
    return _keys(service)


@transaction.atomic
def _regenerate(request: Request, id: UUID, body: requests.RegenerateKeys) -> Operation:
    """Store new keys, and a finished operation that identifies a repeated request."""
    service = find_service(id, live_services(request).select_for_update())
    operation = Operation.objects.create(
        account_id=request.account_id,
        operation_type="Service",
        verb="regenerate_keys",
        service=service,
        state=State.SUCCEEDED,
        ended_at=timezone.now(),
        **request_identity(request),
    )
    if body.key_type != "Secondary":
        service.primary_key = new_key()
    if body.key_type != "Primary":
        service.secondary_key = new_key()
    service.save(update_fields=["primary_key", "secondary_key"])
    request.record(service.name, id=str(service.id), keys=body.key_type or "both")
    return operation


def _keys(service: Service) -> Response:
    return Response(
        body=responses.Keys(primary_key=service.primary_key or "", secondary_key=service.secondary_key or ""),
        headers={"cache-control": "no-store"},
    )


ROUTES = [
    Route("GET", "services/{id}/keys", get_keys, "Get the scoring keys", responses.Keys, extension=True, secret=True),
    Route(
        "POST",
        "services/{id}/regenerateKeys",
        regenerate_keys,
        "Replace the scoring keys",
        responses.Keys,
        body=requests.RegenerateKeys,
        extension=True,
    ),
]
