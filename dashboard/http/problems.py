"""Format of errors of the JSON API: `{"error": {"code", "message", "fields"}}`."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

from django.http import HttpResponse, JsonResponse
from typing_extensions import TypedDict

API_PREFIX = "/v1/"  # paths below it get errors in this format
Code: TypeAlias = Literal[
    "BadRequest",
    "NotAuthenticated",
    "Forbidden",
    "NotFound",
    "MethodNotAllowed",
    "TooSlow",
    "Conflict",
    "TooLarge",
    "UnsupportedMediaType",
    "Invalid",
    "TooManyRequests",
    "Broken",
    "NotNow",
]
CODES: dict[int, Code] = {
    400: "BadRequest",
    401: "NotAuthenticated",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    408: "TooSlow",
    409: "Conflict",
    413: "TooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "Broken",
    503: "NotNow",
}


class ErrorDetail(TypedDict):
    """The reason for an error. `fields` has messages by field name."""

    code: Code
    message: str
    fields: dict[str, list[str]]


class Error(TypedDict):
    """The body of every error response."""

    error: ErrorDetail


def error_body(status: int, message: str, fields: Mapping[str, list[str]] | None = None) -> Error:
    """Return the body of an error with the code of this HTTP status."""
    return {"error": {"code": CODES[status], "message": message, "fields": dict(fields or {})}}


def error_response(status: int, message: str, fields: Mapping[str, list[str]] | None = None) -> HttpResponse:
    """Return the error as a response."""
    return JsonResponse(error_body(status, message, fields), status=status)
