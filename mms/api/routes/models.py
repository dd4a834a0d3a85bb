"""Models."""

from uuid import UUID

from django.db import connection, transaction
from django.db.models import Max, TextField
from django.db.models.functions import Cast
from pydantic import TypeAdapter

from mms.api.collections import PARAMETER, ResourceList
from mms.api.errors import not_found
from mms.api.http import Request, Response, Route
from mms.api.idempotency import create_once, request_identity
from mms.api.schemas import requests, responses
from mms.models import Account, Model

# Plain values, validated together: twice as fast as model instances in an account with 10,000 models.
MODELS = ResourceList("models", responses.Model, TypeAdapter(list[responses.Model]).validate_python)


def register_model(request: Request) -> Response:
    body = request.parse_body(requests.RegisterModel)
    row = create_once(request, Model, lambda: _register(request, body))
    # The reference has 201; clients of 2017 accept only 200.
    return Response(200 if request.is_legacy_client else 201, responses.Model.model_validate(row))


def get_model(request: Request, id: UUID) -> Response:
    row = Model.objects.filter(account_id=request.account_id, id=id).first()
    if row is None:
        raise not_found("model", str(id))
    return Response(body=responses.Model.model_validate(row))


def list_models(request: Request) -> Response:
    rows = Model.objects.filter(account_id=request.account_id)
    name, tag = request.query.get("name"), request.query.get("tag")
    if name:
        rows = rows.filter(name=name)
    if tag:
        # As text, because SQLite has no "contains" for JSON. Tags are letters and digits, so the quotes make it exact.
        rows = rows.annotate(tag_text=Cast("tags", TextField())).filter(tag_text__contains=f'"{tag}"')
    return MODELS.respond(request, rows.values(*responses.Model.model_fields), is_filtered=bool(name or tag))


@transaction.atomic
def _register(request: Request, body: requests.RegisterModel) -> Model:
    """Store the model as the next version of its name. Versions are counted under a lock, so they have no gaps."""
    _lock(request.account_id)
    same_name = Model.objects.filter(account_id=request.account_id, name=body.name)
    newest = same_name.aggregate(newest=Max("version"))["newest"] or 0
    row = Model.objects.create(
        account_id=request.account_id, version=newest + 1, **body.model_dump(), **request_identity(request)
    )
    request.record(f"{row.name} v{row.version}", id=str(row.id))
    return row


def _lock(account_id: int) -> None:
    """Allow one registration at a time. SQLite transactions are exclusive from their start (see settings)."""
    if connection.features.has_select_for_update:
        Account.objects.select_for_update().get(pk=account_id)


ROUTES = [
    Route("POST", "models", register_model, "Register a model", responses.Model, 201, requests.RegisterModel),
    Route(
        "GET",
        "models",
        list_models,
        "List models",
        list[responses.Model],
        query={"name": "Only versions of the model with this name.", "tag": "Only models with this tag."} | PARAMETER,
    ),
    Route("GET", "models/{id}", get_model, "Get one model", responses.Model),
]
