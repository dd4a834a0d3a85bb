"""Doing a request once, however often it is sent: `x-ms-client-request-id` is the key."""

from collections.abc import Callable
from typing import TypeVar

from django.db import IntegrityError, models

from mms.api.errors import ApiError, conflict
from mms.api.http import Request

ROW = TypeVar("ROW", bound=models.Model)


def create_once(request: Request, rows: type[ROW], make: Callable[[], ROW]) -> ROW:
    """The row `make` writes, or the one that an earlier request with the same id wrote.

    Raises ApiError 409 where the id was used for something else. No look before the leap: a repeat meets the unique
    constraint of the table (or a refusal, such as a name taken by itself), and then finds what the first has written.
    """
    try:
        return make()
    except (IntegrityError, ApiError):
        if earlier := _earlier(request, rows):
            return earlier
        raise


def request_identity(request: Request) -> dict[str, str | None]:
    """The columns by which a row is found again."""
    if request.client_request_id is None:
        return {}
    return {"client_request_id": request.client_request_id, "request_digest": request.digests[0]}


def _earlier(request: Request, rows: type[ROW]) -> ROW | None:
    if request.client_request_id is None:
        return None
    key = {"account_id": request.account_id, "client_request_id": request.client_request_id}
    earlier = rows._default_manager.filter(**key).first()
    if earlier is not None and earlier.request_digest not in request.digests:  # type: ignore[attr-defined]
        raise conflict(
            "ClientRequestIdReused",
            "This x-ms-client-request-id was used for another request. Send a new one.",
            "x-ms-client-request-id",
        )
    return earlier
