"""JSON schemas of form fields and of query parameters."""

from collections.abc import Iterable, Mapping
from typing import Any

from django import forms

from dashboard.api.openapi.declare import Body, Fields, Schema
from dashboard.api.parsing import BY_NAME
from dashboard.forms.fields.secret import SecretField, SettingsForm
from dashboard.forms.fields.text import MAX_TAG_CHARS, TagsField

ID: Schema = {"type": "integer", "minimum": 1}
ID_OR_NAME: Schema = {"anyOf": [ID, {"type": "string", "minLength": 1}]}
PAGE: Schema = {"type": "integer", "minimum": 1, "description": "The page, from 1."}
SEARCH: Schema = {"type": "string", "description": "Words to search for; every word must match."}


def body_schema(body: Body) -> Schema:
    """Return the schema of a request body. It rejects unknown fields, as the API does."""
    fields = body.fields()
    properties = {**body.schemas, **{n: field_schema(n, field) for n, field in fields.items() if n not in body.schemas}}
    needed = {name for name, field in fields.items() if field.required}
    required = set() if body.partial else needed | body.required
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return schema | ({"required": [name for name in properties if name in required]} if required else {})


def field_schema(name: str, field: forms.Field) -> Schema:
    """Return the schema of the values that the API accepts for one form field."""
    schema = _type(name, field)
    about = str(field.help_text or "")
    return {"description": about, **schema} if about else schema


def _type(name: str, field: forms.Field) -> Schema:
    if isinstance(field, forms.BooleanField):
        return {"type": "boolean"}
    if isinstance(field, TagsField):
        tag = {"type": "string", "minLength": 1, "maxLength": MAX_TAG_CHARS}
        return {"type": "array", "items": tag, "description": "Each has letters and digits only."}
    if isinstance(field, forms.ModelMultipleChoiceField):
        return {"type": "array", "items": ID, **({"minItems": 1} if field.required else {})}
    if isinstance(field, forms.ModelChoiceField):
        return dict(ID_OR_NAME if name in BY_NAME else ID)
    if isinstance(field, forms.DateField):
        return {"type": "string", "format": "date"}
    if isinstance(field, forms.ChoiceField):
        values = [value for value, _ in field.choices if value != ""]  # type: ignore[misc, union-attr]
        return {"type": "string", **({"enum": values} if values else {})}
    return _text(field)


def _text(field: forms.Field) -> Schema:
    schema: Schema = {"type": "string"}
    if field.required:
        schema["minLength"] = 1
    if longest := getattr(field, "max_length", None):
        schema["maxLength"] = longest
    if isinstance(field, SecretField):
        schema["writeOnly"] = True
    return schema


def new_row(form: type[SettingsForm]) -> Fields:
    """Return the fields of a form that adds a row. Fields with a default in the row aren't required."""
    unbound = form(instance=form._meta.model())
    for name, field in unbound.fields.items():
        field.required = field.required and not unbound.initial.get(name)
    return unbound.fields


def filters(fields: Mapping[str, forms.Field]) -> dict[str, Schema]:
    """Return the query parameters for the fields of a filter form, and `page`."""
    return {name: field_schema(name, field) for name, field in fields.items()} | {"page": PAGE}


def list_query(
    states: Iterable[str],
    orders: Iterable[str],
    flags: Mapping[str, str],
    exact: Mapping[str, Any],
    parents: Iterable[str],
) -> dict[str, Schema]:
    """Return the query parameters of a list, by name. `flags`: their labels by name."""
    query = {"q": SEARCH, "sort": _sort(list(orders)), "page": PAGE}
    if known := list(states):
        about = "Rows in any of these states."
        query["state"] = {"type": "array", "items": {"type": "string", "enum": known}, "description": about}
    flag: Schema = {"type": "string", "enum": ["0", "1"], "x-enum-varnames": ["OFF", "ON"]}
    query |= {name: {**flag, "description": f"1: {label[:1].lower()}{label[1:]}."} for name, label in flags.items()}
    query |= {name: {"type": "string", "enum": [value for value, _ in known]} for name, known in exact.items()}
    return query | {noun: {**ID, "description": f"Only rows that belong to the {noun} of this id."} for noun in parents}


def _sort(orders: list[str]) -> Schema:
    """Return the schema of `sort`, with names that client generators use for the values."""
    names = [order.upper() for order in orders]
    return {
        "type": "string",
        "enum": [*orders, *(f"-{order}" for order in orders)],
        "x-enum-varnames": [*names, *(f"{name}_DESCENDING" for name in names)],
        "description": "The order; with a hyphen in front, descending.",
    }
