"""Operations and their logs."""

from pathlib import Path
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from mms.api.errors import ApiError, conflict, not_found
from mms.api.http import Request, Response, Route, accepted
from mms.api.routes.services import LOG_CHUNK_BYTES, MAX_LOG_CHUNK_BYTES, log_response
from mms.api.schemas import responses
from mms.models import OUTCOMES, TERMINAL, Operation, State
from mms.operations import builds, run
from mms.services import read_logs

MAX_IDS = 200  # per request, so that it fits into a query string
SECRETS = ("service__kube_config", "service__primary_key", "service__secondary_key", "image__registry_password")


def list_operations(request: Request) -> Response:
    """Return the status of up to 200 operations, in the order of `ids`. IDs that don't exist are left out."""
    ids = request.ids_parameter("ids", MAX_IDS)
    found = {operation.id: operation for operation in _operations(request).filter(id__in=ids)}
    return Response(body=[responses.Operation.from_row(found[id], request.account_url) for id in ids if id in found])


def get_operation(request: Request, id: UUID) -> Response:
    return Response(body=responses.Operation.from_row(_find(request, id), request.account_url))


def cancel_operation(request: Request, id: UUID) -> Response:
    operation = _find(request, id)
    if operation.state in TERMINAL:
        raise conflict("OperationOver", f"This operation has already {OUTCOMES[State(operation.state)]}.")
    with transaction.atomic():
        if not run.cancel(operation):
            raise conflict("CannotCancel", "Only image builds, and operations that haven't started, can be canceled.")
        request.record(f"operation {operation.id}", verb=operation.verb)
    return accepted(request, operation.id)


def get_operation_log(request: Request, id: UUID) -> Response:
    """Return the build log of an image operation, or the log of the revision that a service operation started."""
    operation = _find(request, id)
    after, limit = (
        request.integer_parameter("after", 0, 10**18),
        request.integer_parameter("limit", LOG_CHUNK_BYTES, MAX_LOG_CHUNK_BYTES),
    )
    if operation.image_id:
        return log_response(*_read(builds.log_path(operation.image_id), after, limit))
    if operation.service and operation.revision:
        return log_response(*read_logs(operation.service, operation.revision.number, after, limit))
    raise ApiError(404, "NotFound", "This operation has no log.")


def _operations(request: Request) -> QuerySet[Operation]:
    rows = Operation.objects.filter(account_id=request.account_id).select_related("service", "revision", "image")
    return rows.defer(*SECRETS)


def _find(request: Request, id: UUID) -> Operation:
    operation = _operations(request).filter(id=id).first()
    if operation is None:
        raise not_found("operation", str(id))
    return operation


def _read(path: Path, after: int, limit: int) -> tuple[str, int]:
    """Return the text of a log from byte `after`, and the position for the next call.

    The text ends with a complete line, unless a single line is longer than `limit` bytes.
    """
    try:
        with path.open("rb") as file:
            file.seek(after)
            chunk = file.read(limit)
    except FileNotFoundError:
        return "", after
    lines = chunk[: chunk.rfind(b"\n") + 1] or chunk
    return lines.decode(errors="replace"), after + len(lines)


ROUTES = [
    Route(
        "GET",
        "operations",
        list_operations,
        "Get the status of several operations",
        list[responses.Operation],
        query={"ids": f"IDs of operations, separated by commas: at most {MAX_IDS}."},
        extension=True,
    ),
    Route("GET", "operations/{id}", get_operation, "Get the status of an operation", responses.Operation),
    Route(
        "DELETE",
        "operations/{id}",
        cancel_operation,
        "Cancel an operation",
        None,
        202,
        extension=True,
    ),
    Route(
        "GET",
        "operations/{id}/log",
        get_operation_log,
        "Read the log of an operation",
        str,
        query={
            "after": "Byte position to read from: the X-Log-Position of the previous response.",
            "limit": "Maximum number of bytes.",
        },
        extension=True,
    ),
]
