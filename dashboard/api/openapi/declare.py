"""Declarations of API views, and the properties derived from a declaration, its route and its guard."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from django import forms

from dashboard.access.permissions import Permission, required_role
from dashboard.api.guards import ANY_TOKEN, URL_NAME_PREFIX, View
from dashboard.http.problems import API_PREFIX

Schema: TypeAlias = dict[str, Any]
Fields: TypeAlias = Mapping[str, forms.Field]
PARAMETER = re.compile("<([a-z]+):([a-z]+)>")
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
    """The description of one operation, in addition to its route and its permission.

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
    """Attach a Declaration to a view. `options` are its other fields. Guards applied later preserve it."""

    def decorate(view: AnyView) -> AnyView:
        view.declaration = Declaration(response, **options)  # type: ignore[attr-defined]
        return view

    return decorate


def declaration_of(view: Any) -> Declaration:
    """Return the declaration of a view. Raise AttributeError if it has none."""
    found: Declaration = view.declaration
    return found


@dataclass(frozen=True)
class Endpoint:
    """One method of one route; `url_name` is the name of the URL."""

    method: str
    route: str
    url_name: str
    view: View

    @property
    def path(self) -> str:
        """The path as in OpenAPI: /v1/accounts/{account}/."""
        return API_PREFIX + PARAMETER.sub(r"{\2}", self.route)

    @property
    def parameters(self) -> list[tuple[str, str]]:
        """The parameters of the path, as pairs of converter and name."""
        return PARAMETER.findall(self.route)

    @property
    def declaration(self) -> Declaration:
        """The declaration of the view."""
        return declaration_of(self.view)

    @property
    def operation_id(self) -> str:
        """The name in the audit log; for reads, the name of the URL."""
        declared, audited = self.declaration.operation_id, getattr(self.view, "action", "")
        return declared or audited or self.url_name.removeprefix(URL_NAME_PREFIX)

    @property
    def description(self) -> str:
        """The docstring of the view, on one line."""
        return " ".join((self.view.__doc__ or "").split())

    @property
    def permission(self) -> str:
        """The permission that the operation needs, or ANY_TOKEN."""
        guarded: str = self.view.permission  # type: ignore[attr-defined]
        return self.declaration.permission or guarded

    @property
    def is_open(self) -> bool:
        """True if every valid token is sufficient."""
        return self.permission == ANY_TOKEN

    @property
    def scope(self) -> str:
        """The scope that the token needs: read or write."""
        return "read" if self.method == "GET" or self.permission in (ANY_TOKEN, Permission.SEE) else "write"

    @property
    def needs(self) -> str:
        """The required role and scope as text: `Data scientist, scope write`."""
        if self.is_open:
            return self.permission
        role = required_role(Permission(self.permission))
        return role if self.scope == "read" else f"{role}, scope write"
