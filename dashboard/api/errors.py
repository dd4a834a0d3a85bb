"""Exceptions that API views raise to reject a request before anything is changed."""

from collections.abc import Mapping

from django.forms import BaseForm
from django.http import HttpResponse

from dashboard.http.problems import error_response

NOT_FOUND = "Not found, or not visible to you."


class ApiError(Exception):
    """The request was rejected and changed nothing. `fields`: the reasons, by name of the invalid field."""

    def __init__(self, status: int, message: str, fields: Mapping[str, list[str]] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.fields = status, message, dict(fields or {})

    @property
    def response(self) -> HttpResponse:
        """The response that reports the error."""
        return error_response(self.status, self.message, self.fields)


def invalid_field(field: str, message: str) -> ApiError:
    """Return the error (422) for one invalid field."""
    return ApiError(422, f"{field}: {message}", {field: [message]})


def invalid_form(form: BaseForm) -> ApiError:
    """Return the error for an invalid form: 422 with the fields, or 409 if only the state doesn't allow it."""
    fields = {name: [str(error) for error in errors] for name, errors in form.errors.items() if name in form.fields}
    others = [str(error) for error in form.non_field_errors()]
    if not fields:
        return ApiError(409, " ".join(others))
    messages = [*others, *(f"{name}: {' '.join(errors)}" for name, errors in fields.items())]
    return ApiError(422, " ".join(messages), fields)
