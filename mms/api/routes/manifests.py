"""Manifests."""

from collections.abc import Callable
from functools import partial
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet, TextField
from django.db.models.functions import Cast

from mms.api.collections import PARAMETER, ResourceList
from mms.api.errors import bad_field, detail, invalid, not_found
from mms.api.http import Request, Response, Route, parse_id
from mms.api.idempotency import create_once, request_identity
from mms.api.schemas import requests, responses
from mms.images.plan import requirements
from mms.images.plan.spec import Asset
from mms.models import Manifest, Model
from mms.operations import uploads

MANIFESTS = ResourceList("manifests", responses.Manifest, partial(responses.from_rows, responses.Manifest))


def create_manifest(request: Request) -> Response:
    body = request.parse_body(requests.CreateManifest)
    row = create_once(request, Manifest, lambda: _create(request, body))
    return Response(body=responses.Manifest.from_row(row))


def get_manifest(request: Request, id: UUID) -> Response:
    row = Manifest.objects.filter(account_id=request.account_id, id=id).first()
    if row is None:
        raise not_found("manifest", str(id))
    return Response(body=responses.Manifest.from_row(row))


def list_manifests(request: Request) -> Response:
    rows = Manifest.objects.filter(account_id=request.account_id)
    manifest_id, model_id = request.id_parameter("manifestId"), request.id_parameter("modelId")
    if manifest_id:
        rows = rows.filter(id=manifest_id)
    if model_id:
        rows = rows.filter(id__in=manifests_using(model_id).values("id"))
    return MANIFESTS.respond(request, rows, is_filtered=bool(manifest_id or model_id))


def find_manifest(request: Request, manifest_id: str) -> Manifest:
    """Return the manifest with the ID in a body's manifestId. Raises ApiError 400 if there is none."""
    id = parse_id(manifest_id)
    row = Manifest.objects.filter(account_id=request.account_id, id=id).first() if id else None
    if row is None:
        raise bad_field("manifestId", "doesn't match any manifest of this hosting account.", "NotFound")
    return row


def manifests_using(model_id: UUID) -> QuerySet[Manifest]:
    """Return the manifests that contain this model version."""
    text = Cast("resolved_model_ids", TextField())
    return Manifest.objects.annotate(resolved_text=text).filter(resolved_text__contains=f'"{model_id}"')


def _create(request: Request, body: requests.CreateManifest) -> Manifest:
    resolved, problems = _resolve(request.account_id, body.model_ids)
    problems += _asset_problems(body) + _requirement_problems(body.target_runtime.properties)
    if problems:
        raise invalid(*problems)
    properties = body.target_runtime.properties
    with transaction.atomic():
        row = Manifest.objects.create(
            account_id=request.account_id,
            driver_program=body.driver_program,
            description=body.description,
            model_ids=body.model_ids,
            resolved_model_ids=resolved,
            assets=[asset.model_dump(by_alias=True) for asset in body.assets],
            runtime_type=body.target_runtime.runtime_type,
            properties=properties.model_dump(by_alias=True, exclude_none=True),
            **request_identity(request),
        )
        request.record(f"manifest {row.id}")
    return row


def _resolve(account_id: int, references: list[str]) -> tuple[list[str], list[dict[str, str]]]:
    """Return the model IDs for references by ID or name (its newest version), and errors for unknown references."""
    models = Model.objects.filter(account_id=account_id)
    ids = {id for reference in references if (id := parse_id(reference))}
    by_id = {str(id) for id in models.filter(id__in=ids).values_list("id", flat=True)}
    newest = dict(models.filter(name__in=references).order_by("version").values_list("name", "id"))
    resolved: list[str] = []
    problems = []
    for index, reference in enumerate(references):
        target = f"modelIds[{index}]"
        as_text = str(parse_id(reference))
        match = as_text if as_text in by_id else str(newest.get(reference, ""))
        if not match:
            problems.append(detail("NotFound", f"there is no model {reference!r} in this hosting account.", target))
        elif match in resolved:
            problems.append(detail("Duplicate", f"the model {reference!r} is already in the list.", target))
        else:
            resolved.append(match)
    return resolved, problems


def _asset_problems(body: requests.CreateManifest) -> list[dict[str, str]]:
    ids = [asset.id for asset in body.assets]
    problems = [
        detail("Duplicate", f"the asset id {id!r} is already in the list.", f"assets[{index}].id")
        for index, id in enumerate(ids)
        if id in ids[:index]
    ]
    for index, asset in enumerate(body.assets):
        if reason := uploads.find_schema_problem(Asset(asset.id, asset.url, asset.unpack)):
            problems.append(detail("SchemaInvalid", reason, f"assets[{index}]"))
    if body.driver_program and body.driver_program not in ids:
        message = f"no asset has the id {body.driver_program!r}."
        problems.append(detail("NotFound", message, "driverProgram"))
    return problems


def _requirement_problems(properties: requests.RuntimeProperties) -> list[dict[str, str]]:
    """Return the problems of requirements in uploaded files. Those in the request itself were checked with its body."""
    files: dict[str, tuple[str | None, Callable[[str], object]]] = {
        "pipRequirements": (properties.pip_requirements, requirements.parse),
        "condaEnvFile": (properties.conda_env_file, lambda text: requirements.parse_conda(text, "")),
    }
    return [
        detail("Invalid", f"can't be used: {reason}", f"targetRuntime.properties.{name}")
        for name, (value, parse) in files.items()
        if (reason := uploads.find_requirements_problem(value or "", parse))
    ]


ROUTES = [
    Route("POST", "manifests", create_manifest, "Create a manifest", responses.Manifest, 200, requests.CreateManifest),
    Route(
        "GET",
        "manifests",
        list_manifests,
        "List manifests",
        list[responses.Manifest],
        query={"modelId": "Only manifests that contain this model.", "manifestId": "Only this manifest."} | PARAMETER,
    ),
    Route("GET", "manifests/{id}", get_manifest, "Get one manifest", responses.Manifest),
]
