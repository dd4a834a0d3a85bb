from typing import Any
from uuid import UUID

from django.db import transaction

from mms.api.accepted import accepted
from mms.api.errors import bad_field, not_found
from mms.api.http import Request, Response, Route
from mms.api.idempotency import identity, once
from mms.api.routes.manifests import find_manifest, using
from mms.api.schemas import requests as schemas
from mms.api.schemas import responses
from mms.images import runtimes
from mms.models import Image, Manifest, Operation
from mms.operations import run


def create_image(request: Request) -> Response:
    wanted = request.read(schemas.CreateImage)
    return accepted(request, once(request, Operation, lambda: _create(request, wanted)))


def get_image(request: Request, id: UUID) -> Response:
    row = built(request).filter(id=id).first()
    if row is None:
        raise not_found("image", str(id))
    return Response(body=responses.Image.of(row))


def list_images(request: Request) -> Response:
    rows = built(request).order_by("created_at")
    if manifest_id := request.id_filter("manifestId"):
        rows = rows.filter(manifest_id=manifest_id)
    if model_id := request.id_filter("modelId"):
        rows = rows.filter(manifest_id__in=using(model_id).values("id"))
    return Response(body=responses.many(responses.Image, rows))


def built(request: Request) -> Any:
    """The images of the account that are there: those whose build has succeeded (a QuerySet)."""
    return Image.objects.filter(account_id=request.account_id).exclude(digest="").defer("result", "registry_password")


def _create(request: Request, wanted: schemas.CreateImage) -> Operation:
    manifest = find_manifest(request, wanted.manifest_id)
    _refuse_what_cannot_run(manifest)
    registry = wanted.registry_info
    with transaction.atomic():
        image = Image.objects.create(
            account_id=request.account_id,
            manifest=manifest,
            description=wanted.description,
            image_type=wanted.image_type,
            registry_location=registry.location,
            registry_user=registry.user,
            registry_password=registry.password,
        )
        operation = Operation(
            account_id=request.account_id,
            operation_type="Image",
            verb="create_image",
            image=image,
            **identity(request),
        )
        return run.accept(operation)


def _refuse_what_cannot_run(manifest: Manifest) -> None:
    """Before anything is built: a runtime this server does not have, and a manifest that nothing could start."""
    if reason := runtimes.unavailable_reason(manifest.runtime_type):
        raise bad_field("manifestId", reason, "RuntimeNotAvailable")
    if not manifest.driver_program:
        raise bad_field("manifestId", "this manifest names no driverProgram, so its image would have nothing to run.")


ROUTES = [
    Route("POST", "images", create_image, "Create an image", None, 202, schemas.CreateImage),
    Route(
        "GET",
        "images",
        list_images,
        "List images",
        list[responses.Image],
        query={"manifestId": "only images of this manifest", "modelId": "only images with this model"},
    ),
    Route("GET", "images/{id}", get_image, "Get one image", responses.Image),
]
