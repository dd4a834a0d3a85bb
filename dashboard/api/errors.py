"""Answers of the API that say no: one shape for all, `{"error": {"code", "message", "fields"}}`."""

from collections.abc import Mapping
from typing import Literal, TypeAlias

from django.forms import BaseForm
from django.http import HttpResponse, JsonResponse
from typing_extensions import TypedDict

PREFIX = "/v1/"
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
ABSENT = "Not found, or not visible to you."


class ErrorDetail(TypedDict):
    """What is wrong; `fields` has the sentences about each field."""

    code: Code
    message: str
    fields: dict[str, list[str]]


class Error(TypedDict):
    """The body of every response that isn't a success."""

    error: ErrorDetail


class Problem(Exception):
    """The request is refused and has changed nothing. `fields`: the sentences about each field that is wrong."""

    def __init__(self, status: int, message: str, fields: Mapping[str, list[str]] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.fields = status, message, dict(fields or {})

    @property
    def response(self) -> HttpResponse:
        return answer(self.status, self.message, self.fields)


def body(status: int, message: str, fields: Mapping[str, list[str]] | None = None) -> Error:
    return {"error": {"code": CODES[status], "message": message, "fields": dict(fields or {})}}


def answer(status: int, message: str, fields: Mapping[str, list[str]] | None = None) -> HttpResponse:
    return JsonResponse(body(status, message, fields), status=status)


def wrong(field: str, message: str) -> Problem:
    """422 because of one field."""
    return Problem(422, f"{field}: {message}", {field: [message]})


def of_form(form: BaseForm) -> Problem:
    """What is wrong with a form: 422 with the fields, or 409 where the fields are right and the time is not."""
    fields = {name: [str(error) for error in errors] for name, errors in form.errors.items() if name in form.fields}
    others = [str(error) for error in form.non_field_errors()]
    if not fields:
        return Problem(409, " ".join(others))
    return Problem(422, " ".join([*others, *(f"{name}: {' '.join(said)}" for name, said in fields.items())]), fields)
