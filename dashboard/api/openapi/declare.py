"""Declarations that the views of the JSON API carry: which fields they read and what they respond with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from django import forms

from dashboard.permissions import Permission

Schema: TypeAlias = dict[str, Any]
Fields: TypeAlias = Mapping[str, forms.Field]
AnyView = TypeVar("AnyView", bound=Callable[..., Any])


@dataclass(frozen=True)
class Body:
    """The JSON object that an operation reads: the fields of a form.

    `name`: the name of its schema. `fields`: those of the form that parses it. `partial`: every field is optional.
    `required`: further fields that the form requires only in its own checks. `schemas`: fields that no form declares,
    and fields that accept less or more than the class of the form field suggests.
    """

    name: str
    fields: Callable[[], Fields]
    example: Mapping[str, Any]
    partial: bool = False
    required: frozenset[str] = frozenset()
    schemas: Mapping[str, Schema] = field(default_factory=dict)


@dataclass(frozen=True)
class Declaration:
    """One operation, beside its route and its permission.

    `response`: the type of the response body; None for an empty body, `str` for text. `status`: the one of success;
    `repeat`: the one when an Idempotency-Key is sent again. `bodies`: what it reads; with several, `kind` selects one.
    `any_json`: it reads any JSON value. `query`: the schemas of its parameters by name. `headers`: response headers
    with their descriptions. `conflicts`: it can respond with 409. `operation_id`: where URL and audit share no name.
    `permission`: the one that the view checks after its guard.
    """

    response: Any = None
    status: int = 200
    repeat: int = 0
    bodies: tuple[Body, ...] = ()
    any_json: bool = False
    query: Mapping[str, Schema] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    conflicts: bool = False
    operation_id: str = ""
    permission: Permission | None = None


LOCATION = {"Location": "The path of the resource."}


def declare(response: Any, **options: Any) -> Callable[[AnyView], AnyView]:
    """Attach a Declaration to a view; `options` are its other fields. Guards applied later keep it."""

    def decorate(view: AnyView) -> AnyView:
        view.declaration = Declaration(response, **options)  # type: ignore[attr-defined]
        return view

    return decorate


def declaration_of(view: Any) -> Declaration:
    """Return the declaration of a view. Raise AttributeError if it has none."""
    found: Declaration = view.declaration
    return found
