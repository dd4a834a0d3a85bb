"""Conversion of JSON request bodies to form data.

The forms of the pages validate the values. This module only rejects values that a form on a page couldn't submit.
"""

import json
from collections.abc import Iterable
from typing import Any

from django import forms
from django.http import QueryDict

from dashboard.api.errors import ApiError, invalid_field
from dashboard.api.guards import ApiRequest
from dashboard.catalog.picker import parse_pks

BY_NAME = ("registry", "cluster")  # fields that also accept the name of a row
MAX_INTEGER = 2**63 - 1  # the largest that the database can store
MAX_NAME_CHARS = 100  # of an unknown field that a message shows


def read_object(request: ApiRequest) -> dict[str, Any]:
    """Return the JSON object in the body; {} for an empty body. Raise ApiError, or RequestDataTooBig."""
    if not request.body:
        return {}
    try:
        value = json.loads(request.body)
    except RecursionError:
        raise ApiError(422, "This JSON is nested too deeply.") from None
    except ValueError as error:
        at = f": line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise ApiError(422, f"The body isn’t valid JSON{at}.") from None
    if not isinstance(value, dict):
        raise ApiError(422, "Send one JSON object, {…}.")
    for name, item in value.items():
        check_text(name if is_encodable(name) else "(a name)", [name, item])
    return value


def is_encodable(text: str) -> bool:
    """Return True if `text` can be encoded as UTF-8: JSON can contain lone surrogates (\\\\ud800)."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def check_text(field: str, value: Any) -> None:
    """Raise ApiError naming `field` if a text in `value` can't be encoded as UTF-8."""
    if isinstance(value, str) and not is_encodable(value):
        raise invalid_field(field, "It contains an invalid character (a lone surrogate).")
    if isinstance(value, list):
        for item in value:
            check_text(field, item)


def check_fields(body: dict[str, Any], known: Iterable[str]) -> None:
    """Raise ApiError naming the first field of `body` that isn't in `known`."""
    known = sorted(known)
    for name in body:
        if name not in known:
            names = ", ".join(known) if known else "none"
            raise invalid_field(name[:MAX_NAME_CHARS], f"This field doesn’t exist. Fields: {names}.")


def form_data(fields: dict[str, forms.Field], body: dict[str, Any]) -> QueryDict:
    """Return the body as a page would submit it to the form with these `fields`. Raise ApiError for a wrong type."""
    check_fields(body, fields)
    data = QueryDict(mutable=True)
    for name, value in body.items():
        if value is not None:
            data.setlist(name, _texts(name, fields[name], value))
    return data


def _texts(name: str, field: forms.Field, value: Any) -> list[str]:
    if isinstance(field, forms.BooleanField):
        if not isinstance(value, bool):
            raise invalid_field(name, "Use true or false.")
        return ["on"] if value else []
    if isinstance(value, list):
        if isinstance(field, forms.ModelMultipleChoiceField):
            return [_text(name, item) for item in value]
        if name == "tags":
            return [",".join(_text(name, item) for item in value)]
    elif isinstance(field, forms.ModelMultipleChoiceField):
        raise invalid_field(name, "Use a list of numbers.")
    if name in BY_NAME and isinstance(field, forms.ModelChoiceField):
        return [_pk_of(name, field, value)]
    return [_text(name, value)]


def _text(name: str, value: Any) -> str:
    """Return a string or an integer as a form submits it."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise invalid_field(name, "Use a text or a whole number.")
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise invalid_field(name, "This number is too large.")
    return str(value)


def _pk_of(name: str, field: "forms.ModelChoiceField[Any]", value: Any) -> str:
    """Return the primary key of the row that `value` identifies, by id or by name."""
    text = _text(name, value)
    if isinstance(value, int):
        return text
    if "\0" in text:
        raise invalid_field(name, "It contains a NUL character.")
    row = field.queryset.filter(name=text).first() if field.queryset is not None else None
    if row is None and not parse_pks(text):
        known = ", ".join(str(row) for row in field.queryset or ())
        raise invalid_field(name, f"This account has none with that name. Known: {known or 'none'}.")
    return str(row.pk) if row else text
