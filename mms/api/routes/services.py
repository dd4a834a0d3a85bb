"""Services and their logs."""

from functools import partial
from uuid import UUID

from django.db import transaction
from django.db.models import Prefetch, QuerySet
from django.utils import timezone

from mms.api.collections import PARAMETER, ResourceList
from mms.api.errors import ApiError, bad_field, conflict, not_found
from mms.api.http import Request, Response, Route, accepted, parse_id
from mms.api.idempotency import create_once, request_identity
from mms.api.routes.images import built_images
from mms.api.routes.manifests import find_manifest
from mms.api.schemas import requests, responses
from mms.engines.base import EngineRefusedError
from mms.models import OPEN, OUTCOMES, Image, Operation, Revision, Service, State
from mms.operations import run
from mms.services import engine_for, publish_route, read_logs
from mms.services.scoring_keys import new_key

SERVICES = ResourceList("services", responses.Service, partial(responses.from_rows, responses.Service))
MAX_REVISIONS = 20
LOG_CHUNK_BYTES = 65536  # bytes
MAX_LOG_CHUNK_BYTES = 1024 * 1024


def create_service(request: Request) -> Response:
    body = request.parse_body(requests.CreateService)
    return accepted(request, create_once(request, Operation, lambda: _create(request, body)).id)


def update_service(request: Request, id: UUID) -> Response:
    body = request.parse_body(requests.UpdateService)
    return accepted(request, create_once(request, Operation, lambda: _update(request, id, body)).id)


def delete_service(request: Request, id: UUID) -> Response:
    """Remove the scoring URL before responding 200. A worker then stops the service's processes."""
    try:
        operation = create_once(request, Operation, lambda: _delete(request, id))
    except ApiError as error:
        if error.status == 404 and request.is_legacy_client:  # these clients treat 404 as a failure
            return Response(204)
        raise
    return Response(200, headers={"x-ms-request-id": str(operation.id)})


def get_service(request: Request, id: UUID) -> Response:
    return Response(body=responses.Service.from_row(find_service(id, _with_revisions(request))))


def list_services(request: Request) -> Response:
    rows = _with_revisions(request)
    name, image_id = request.query.get("name"), request.id_parameter("imageId")
    manifest_id = request.id_parameter("manifestId")
    if name:
        rows = rows.filter(name=name)
    if image_id:
        rows = rows.filter(image_id=image_id)
    if manifest_id:
        rows = rows.filter(image__manifest_id=manifest_id)
    return SERVICES.respond(request, rows, is_filtered=bool(name or image_id or manifest_id))


def get_service_logs(request: Request, id: UUID) -> Response:
    service = find_service(id, live_services(request))
    newest = service.revisions.values_list("number", flat=True).first() or 0
    number = request.integer_parameter("revision", newest, 10**9)
    if not service.revisions.filter(number=number).exists():
        raise not_found("revision", str(number))
    after = request.integer_parameter("after", 0, 10**18)
    limit = request.integer_parameter("limit", LOG_CHUNK_BYTES, MAX_LOG_CHUNK_BYTES)
    text, position = read_logs(service, number, after, limit)
    return log_response(text, position)


def log_response(text: str, position: int) -> Response:
    """Return log text, with the position for the next request in a header."""
    headers = {"content-type": "text/plain; charset=utf-8", "x-log-position": str(position)}
    return Response(raw=text.encode(errors="replace"), headers=headers)


def live_services(request: Request) -> QuerySet[Service]:
    """Return the services of the account that aren't deleted."""
    return Service.objects.filter(account_id=request.account_id, deleted_at=None)


def find_service(id: UUID, rows: QuerySet[Service]) -> Service:
    """Return the service with this ID among `rows`. Raises ApiError 404 if there is none."""
    service = rows.filter(id=id).first()
    if service is None:
        raise not_found("service", str(id))
    return service


def _with_revisions(request: Request) -> QuerySet[Service]:
    newest = Revision.objects.order_by("-number")[:MAX_REVISIONS]
    prefetch = Prefetch("revisions", queryset=newest, to_attr="newest_revisions")
    secrets = ("kube_config", "primary_key", "secondary_key", "image__registry_password", "image__result")
    return live_services(request).select_related("image").prefetch_related(prefetch).defer(*secrets)


def _create(request: Request, body: requests.CreateService) -> Operation:
    image = _image(request, body.image_id)
    _check_engine(body.kube_config)
    with transaction.atomic():
        if taken := live_services(request).filter(name=body.name).first():
            raise conflict(
                "NameTaken",
                f"A service named {body.name!r} already exists (ID {taken.id}). Choose another name.",
                "name",
            )
        service = Service.objects.create(
            account_id=request.account_id,
            name=body.name,
            image=image,
            kube_config=body.kube_config,
            pull_secret=body.acr_image_pull_secret,
            primary_key=new_key(),
            secondary_key=new_key(),
        )
        return _accept(request, "create_service", service, image)


def _update(request: Request, id: UUID, body: requests.UpdateService) -> Operation:
    with transaction.atomic():
        service = find_service(id, live_services(request).select_for_update())
        image = _image(request, body.image_id) if body.image_id else _newest_image(request, body.manifest_id or "")
        _check_no_open_operation(service)
        service.pull_secret = body.acr_image_pull_secret
        service.save(update_fields=["pull_secret"])
        return _accept(request, "update_service", service, image)


def _delete(request: Request, id: UUID) -> Operation:
    with transaction.atomic():
        service = find_service(id, live_services(request).select_for_update())
        _check_no_open_operation(service)
        Service.objects.filter(pk=id).update(deleted_at=timezone.now())
        operation = Operation(
            account_id=request.account_id,
            operation_type="Service",
            verb="delete_service",
            service=service,
            **request_identity(request),
        )
        transaction.on_commit(
            partial(publish_route, service), robust=True
        )  # removes the route, because the service is deleted
        request.record(service.name, id=str(service.id), operation=str(operation.id))
        return run.accept(operation)


def _accept(request: Request, verb: str, service: Service, image: Image) -> Operation:
    """Store the next revision of the service, and the operation that starts it."""
    newest = service.revisions.values_list("number", flat=True).first() or 0
    revision = Revision.objects.create(service=service, number=newest + 1, image=image)
    operation = Operation(
        account_id=request.account_id,
        operation_type="Service",
        verb=verb,
        service=service,
        revision=revision,
        **request_identity(request),
    )
    request.record(service.name, id=str(service.id), image=str(image.id), operation=str(operation.id))
    return run.accept(operation)


def _image(request: Request, image_id: str) -> Image:
    """Return the image with the ID in a body's imageId.

    Raises ApiError 400 if there is none, and 409 if its build hasn't finished or has failed.
    """
    id = parse_id(image_id)
    if id and (image := built_images(request).filter(id=id).first()):
        return image
    builds = Operation.objects.filter(account_id=request.account_id, verb="create_image")
    build = builds.filter(image__id=id).first() if id else None
    if build is None:
        raise bad_field("imageId", "doesn't match any image of this hosting account.", "NotFound")
    if build.state in OPEN:
        raise conflict("ImageNotReady", f"The image is still being built. Wait for operation {build.id}.", "imageId")
    message = (
        f"The build of this image has {OUTCOMES[State(build.state)]} (operation {build.id}). Create another image."
    )
    raise conflict("ImageNotBuilt", message, "imageId")


def _newest_image(request: Request, manifest_id: str) -> Image:
    """Return the newest image of a manifest. Raises ApiError 409 if it has none."""
    manifest = find_manifest(request, manifest_id)
    image = built_images(request).filter(manifest=manifest).order_by("-created_at").first()
    if image is None:
        message = "No image of this manifest has been built. Create one first (POST images)."
        raise conflict("NoImage", message, "manifestId")
    return image


def _check_engine(kube_config: str) -> None:
    try:
        engine_for(kube_config)
    except EngineRefusedError as refusal:
        raise bad_field("kubeConfig", str(refusal), "EngineNotAvailable") from None


def _check_no_open_operation(service: Service) -> None:
    other = service.operations.filter(state__in=OPEN).first()
    if other is not None:
        message = f"Operation {other.id} ({other.verb}) of this service hasn't finished. Wait for it, or cancel it."
        raise conflict("OperationInProgress", message, "operation")


ROUTES = [
    Route("POST", "services", create_service, "Create a service", None, 202, requests.CreateService),
    Route(
        "GET",
        "services",
        list_services,
        "List services",
        list[responses.Service],
        query={
            "name": "Only the service with this name.",
            "imageId": "Only services that run this image.",
            "manifestId": "Only services that run an image of this manifest.",
        }
        | PARAMETER,
    ),
    Route("GET", "services/{id}", get_service, "Get one service", responses.Service),
    Route("PUT", "services/{id}", update_service, "Update a service", None, 202, requests.UpdateService),
    Route("DELETE", "services/{id}", delete_service, "Delete a service"),
    Route(
        "GET",
        "services/{id}/logs",
        get_service_logs,
        "Read the log of a service",
        str,
        query={
            "revision": "Number of the revision. Defaults to the newest.",
            "after": "Byte position to read from: the X-Log-Position of the previous response.",
            "limit": "Maximum number of bytes.",
        },
        extension=True,
    ),
]
