"""Images."""

from functools import partial
from urllib.parse import urlsplit
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet

from mms.api.collections import PARAMETER, ResourceList
from mms.api.errors import bad_field, not_found
from mms.api.http import Request, Response, Route, accepted
from mms.api.idempotency import create_once, request_identity
from mms.api.routes.manifests import find_manifest, manifests_using
from mms.api.schemas import requests, responses
from mms.images import runtimes
from mms.images.build import LOCAL_REGISTRY
from mms.images.registry.client import split_location
from mms.models import Image, Manifest, Operation
from mms.operations import run
from netguard.destinations import DEFAULT_PORTS, is_listed

IMAGES = ResourceList("images", responses.Image, partial(responses.from_rows, responses.Image))


def create_image(request: Request) -> Response:
    body = request.parse_body(requests.CreateImage)
    return accepted(request, create_once(request, Operation, lambda: _create(request, body)).id)


def get_image(request: Request, id: UUID) -> Response:
    row = built_images(request).filter(id=id).first()
    if row is None:
        raise not_found("image", str(id))
    return Response(body=responses.Image.from_row(row))


def list_images(request: Request) -> Response:
    rows = built_images(request)
    manifest_id, model_id = request.id_parameter("manifestId"), request.id_parameter("modelId")
    if manifest_id:
        rows = rows.filter(manifest_id=manifest_id)
    if model_id:
        rows = rows.filter(manifest_id__in=manifests_using(model_id).values("id"))
    return IMAGES.respond(request, rows, is_filtered=bool(manifest_id or model_id))


def built_images(request: Request) -> QuerySet[Image]:
    """Return the images of the account whose build succeeded."""
    return Image.objects.filter(account_id=request.account_id).exclude(digest="").defer("result", "registry_password")


def _create(request: Request, body: requests.CreateImage) -> Operation:
    manifest = find_manifest(request, body.manifest_id)
    _check_can_run(manifest)
    registry = body.registry_info
    check_registry(registry.location)
    with transaction.atomic():
        image = Image.objects.create(
            account_id=request.account_id,
            manifest=manifest,
            description=body.description,
            image_type=body.image_type,
            registry_location=registry.location,
            registry_user=registry.user,
            registry_password=registry.password,
        )
        operation = Operation(
            account_id=request.account_id,
            operation_type="Image",
            verb="create_image",
            image=image,
            **request_identity(request),
        )
        request.record(f"image {image.id}", manifest=str(manifest.id), operation=str(operation.id))
        return run.accept(operation)


def check_registry(location: str) -> None:
    """Raise ApiError 400 for a registry that isn't in the operators' list, if there is one."""
    if not settings.MMS_REGISTRIES or location.rstrip("/") == LOCAL_REGISTRY:
        return
    base = urlsplit(split_location(location)[0])
    if not is_listed(base.hostname or "", base.port or DEFAULT_PORTS[base.scheme], settings.MMS_REGISTRIES):
        reason = "the operators of this server restrict the registries that images may be pushed to (MMS_REGISTRIES)."
        raise bad_field("registryInfo.location", f"{reason} {base.netloc} isn't one of them.", "RegistryNotAllowed")


def _check_can_run(manifest: Manifest) -> None:
    """Raise ApiError 400 for a runtime that this server doesn't have, or a manifest without a driver."""
    if reason := runtimes.unavailable_reason(manifest.runtime_type):
        raise bad_field("manifestId", reason, "RuntimeNotAvailable")
    if not manifest.driver_program:
        raise bad_field("manifestId", "this manifest has no driverProgram, so its image would have nothing to run.")


ROUTES = [
    Route("POST", "images", create_image, "Create an image", None, 202, requests.CreateImage),
    Route(
        "GET",
        "images",
        list_images,
        "List images",
        list[responses.Image],
        query={"manifestId": "Only images of this manifest.", "modelId": "Only images with this model."} | PARAMETER,
    ),
    Route("GET", "images/{id}", get_image, "Get one image", responses.Image),
]
