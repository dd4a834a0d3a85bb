"""Answers of the API that say no: one shape for all, `{"error": {"code", "message", "fields"}}`."""

from collections.abc import Mapping

from django.forms import BaseForm
from django.http import HttpResponse

from dashboard.http.problems import error_response

ABSENT = "Not found, or not visible to you."


class Problem(Exception):
    """The request is refused and has changed nothing. `fields`: the sentences about each field that is wrong."""

    def __init__(self, status: int, message: str, fields: Mapping[str, list[str]] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.fields = status, message, dict(fields or {})

    @property
    def response(self) -> HttpResponse:
        return error_response(self.status, self.message, self.fields)


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
