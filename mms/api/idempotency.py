"""Idempotent requests. The key is `x-ms-client-request-id`."""

from collections.abc import Callable
from typing import TypeVar

from django.db import IntegrityError, models

from mms.api.errors import ApiError, conflict
from mms.api.http import Request

ROW = TypeVar("ROW", bound=models.Model)


def create_once(request: Request, model: type[ROW], create: Callable[[], ROW]) -> ROW:
    """Return the row that `create` inserts, or the one that an earlier request with the same ID inserted.

    Raises ApiError 409 if the ID was used for a different request. Nothing is looked up in advance: a repeated request
    fails on the unique constraint, or on a conflict with its own earlier effect, and only then finds that row.
    """
    try:
        return create()
    except (IntegrityError, ApiError):
        if earlier := _find_earlier(request, model):
            return earlier
        raise


def request_identity(request: Request) -> dict[str, str | None]:
    """Return the values of the columns that identify a repeated request."""
    if request.client_request_id is None:
        return {}
    return {"client_request_id": request.client_request_id, "request_digest": request.digests[0]}


def _find_earlier(request: Request, model: type[ROW]) -> ROW | None:
    if request.client_request_id is None:
        return None
    key = {"account_id": request.account_id, "client_request_id": request.client_request_id}
    earlier = model._default_manager.filter(**key).first()
    if earlier is not None and earlier.request_digest not in request.digests:  # type: ignore[attr-defined]
        raise conflict(
            "ClientRequestIdReused",
            "This x-ms-client-request-id was used for another request. Send a new ID.",
            "x-ms-client-request-id",
        )
    return earlier
