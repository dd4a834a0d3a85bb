"""What a request of the API says, as the forms of the pages take it: JSON in, form fields out.

The forms judge the values; here is only judged what a form on a page could not even say.
"""

import json
from collections.abc import Iterable
from typing import Any

from django import forms
from django.http import QueryDict

from dashboard.api.errors import Problem, wrong
from dashboard.api.guards import ApiRequest
from dashboard.catalog.picker import numbers

BY_NAME = ("registry", "cluster")
NUMBER_MAX = 2**63 - 1  # what the database can hold


def read_object(request: ApiRequest) -> dict[str, Any]:
    """The JSON object in the body, {} where there is none. Raises Problem, and RequestDataTooBig."""
    if not request.body:
        return {}
    try:
        value = json.loads(request.body)
    except RecursionError:
        raise Problem(422, "This JSON is nested too deeply.") from None
    except ValueError as error:
        at = f": line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
        raise Problem(422, f"The body isn’t valid JSON{at}.") from None
    if not isinstance(value, dict):
        raise Problem(422, "Send one JSON object, {…}.")
    for name, item in value.items():
        check_text(name if is_text(name) else "(a name)", [name, item])
    return value


def is_text(text: str) -> bool:
    """Whether `text` can be stored and sent: JSON can say halves of characters (\\\\ud800), UTF-8 cannot."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def check_text(field: str, value: Any) -> None:
    """Raise Problem naming `field` where there is something in `value` that is no text or no number of ours."""
    if isinstance(value, str) and not is_text(value):
        raise wrong(field, "It contains an invalid character (a lone surrogate).")
    if isinstance(value, list):
        for item in value:
            check_text(field, item)


def only(body: dict[str, Any], known: Iterable[str]) -> None:
    """Raise Problem naming a field that there is not."""
    known = sorted(known)
    for name in body:
        if name not in known:
            there = ", ".join(known) if known else "none"
            raise wrong(name[:100], f"This field doesn’t exist. Fields: {there}.")


def form_data(fields: dict[str, forms.Field], body: dict[str, Any]) -> QueryDict:
    """The body as the form with these `fields` gets it from a page. Raises Problem naming a field of a wrong type."""
    only(body, fields)
    data = QueryDict(mutable=True)
    for name, value in body.items():
        if value is not None:
            data.setlist(name, _texts(name, fields[name], value))
    return data


def _texts(name: str, field: forms.Field, value: Any) -> list[str]:
    if isinstance(field, forms.BooleanField):
        if not isinstance(value, bool):
            raise wrong(name, "Use true or false.")
        return ["on"] if value else []
    if isinstance(value, list):
        if isinstance(field, forms.ModelMultipleChoiceField):
            return [_text(name, item) for item in value]
        if name == "tags":
            return [",".join(_text(name, item) for item in value)]
    elif isinstance(field, forms.ModelMultipleChoiceField):
        raise wrong(name, "Use a list of numbers.")
    if name in BY_NAME and isinstance(field, forms.ModelChoiceField):
        return [_named(name, field, value)]
    return [_text(name, value)]


def _text(name: str, value: Any) -> str:
    """A text or a number as a form sends it."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise wrong(name, "Use a text or a whole number.")
    if isinstance(value, int) and abs(value) > NUMBER_MAX:
        raise wrong(name, "This number is too large.")
    return str(value)


def _named(name: str, field: forms.ModelChoiceField, value: Any) -> str:
    """The primary key of what `value` names; registries and clusters may be given by name."""
    text = _text(name, value)
    if isinstance(value, int):
        return text
    if "\0" in text:
        raise wrong(name, "It contains a NUL character.")
    row = field.queryset.filter(name=text).first() if field.queryset is not None else None
    if row is None and not numbers(text):
        known = ", ".join(str(found) for found in field.queryset or ())
        raise wrong(name, f"This account has none with that name. Known: {known or 'none'}.")
    return str(row.pk) if row else text
