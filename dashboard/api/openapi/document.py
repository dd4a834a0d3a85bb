"""The OpenAPI document of the JSON API, derived from its routes."""

from collections.abc import Iterable
from typing import Any

from django.conf import settings
from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from dashboard.api.openapi.declare import Endpoint, Schema
from dashboard.api.openapi.fields import body_schema
from dashboard.api.openapi.operation import ERRORS, OTHER_ERRORS, operation_of
from dashboard.http.problems import Error

REFERENCE = "#/components/schemas/{model}"
SERIALIZED: JsonSchemaMode = "serialization"
AUTHENTICATE = {"WWW-Authenticate": {"schema": {"const": "Bearer"}}}
RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}}
DESCRIPTION = (
    "Everything that the pages show and do, for programs. Create a token on the page API tokens and send it as "
    "`Authorization: Bearer <token>`. Uploads and a first script: docs/deploy/script-it.md."
)


def make_document(endpoints: Iterable[Endpoint], version: str) -> Schema:
    """Return the whole document (OpenAPI 3.1) for `endpoints`; `version` is that of the project."""
    found = list(endpoints)
    schemas, components = _response_schemas(found)
    for endpoint in found:
        components |= {body.name: body_schema(body) for body in endpoint.declaration.bodies}
    paths: dict[str, Schema] = {}
    for endpoint in found:
        operation = operation_of(endpoint, schemas, components)
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "Model Management dashboard", "version": version, "description": DESCRIPTION},
        "servers": [{"url": f"{settings.SITE_PATH}/"}],
        "security": [{"token": []}],
        "tags": [{"name": name} for name in _tags(paths)],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(components.items())),
            "responses": _error_responses(schemas[Error]),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _response_schemas(endpoints: list[Endpoint]) -> tuple[dict[Any, Schema], dict[str, Schema]]:
    """Return references to the schemas of the response types, and the schemas by name."""
    types = dict.fromkeys(endpoint.declaration.response for endpoint in endpoints)
    kinds = [Error, *(kind for kind in types if kind not in (None, str))]
    adapters = [(kind, SERIALIZED, TypeAdapter(kind)) for kind in kinds]
    references, definitions = TypeAdapter.json_schemas(adapters, ref_template=REFERENCE)
    components = {name: _untitled(schema) for name, schema in definitions.get("$defs", {}).items()}
    return {kind: references[kind, SERIALIZED] for kind in kinds}, components


def _untitled(schema: Any) -> Any:
    """Return the schema without pydantic's titles, for which client generators would create classes."""
    if isinstance(schema, list):
        return [_untitled(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    properties = schema.get("properties", {})
    cleaned = {name: _untitled(part) for name, part in schema.items() if name not in ("title", "properties")}
    return cleaned | (
        {"properties": {name: _untitled(part) for name, part in properties.items()}} if properties else {}
    )


def _error_responses(error: Schema) -> dict[str, Schema]:
    content = {"application/json": {"schema": error}}
    responses: dict[str, Schema] = {
        str(status): {"description": about, "content": content} for status, about in ERRORS.items()
    }
    responses["401"]["headers"] = AUTHENTICATE
    responses["429"]["headers"] = RETRY_AFTER
    return responses | {"default": {"description": OTHER_ERRORS, "content": content}}


def _tags(paths: dict[str, Schema]) -> list[str]:
    return list(dict.fromkeys(operation["tags"][0] for item in paths.values() for operation in item.values()))
