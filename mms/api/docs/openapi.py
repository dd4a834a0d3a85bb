"""The OpenAPI document, derived from the routes and the schemas."""

from functools import lru_cache
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from mms.api.http import API_VERSION, Route
from mms.api.routes import ROUTES
from mms.api.schemas import responses

PREFIX = "/api/subscriptions/{subscriptionId}/resourceGroups/{resourceGroup}/hostingAccounts/{hostingAccount}"
REFERENCE = "#/components/schemas/{model}"
HEADERS = {
    "x-ms-request-id": {
        "description": "The ID of this request; with 202, the ID of the operation.",
        "schema": {"type": "string", "format": "uuid"},
    }
}
LOCATION = {
    "Operation-Location": {
        "description": "The URL of the operation's status.",
        "schema": {"type": "string", "format": "uri"},
    }
}
Schemas = dict[Any, dict[str, Any]]  # by class


@lru_cache(1)
def document() -> dict[str, Any]:
    """Return the document (OpenAPI 3.1)."""
    schemas, components = _schemas()
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(f"{PREFIX}/{route.path}", {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Model Management Service",
            "version": API_VERSION,
            "description": "Register models, compose manifests, build images, run services: docs/reference/mms-api.md",
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _schemas() -> tuple[Schemas, dict[str, Any]]:
    """Return the reference to the schema of each class, and all schemas by name."""
    always = (responses.ErrorBody, responses.ChangesBody)
    kinds: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {(kind, "serialization"): None for kind in always}
    for route in ROUTES:
        if route.body:
            kinds[route.body, "validation"] = None
        if kind := _model(route.response):
            kinds[kind, "serialization"] = None
    references, definitions = models_json_schema(list(kinds), ref_template=REFERENCE)
    return {kind: reference for (kind, _), reference in references.items()}, definitions["$defs"]


def _model(response: Any) -> type[BaseModel] | None:
    kind = get_args(response)[0] if get_args(response) else response
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _operation(route: Route, schemas: Schemas) -> dict[str, Any]:
    operation = {
        "operationId": route.name,
        "summary": route.summary,
        "description": (route.view.__doc__ or route.summary).strip(),
        "tags": [route.path.split("/")[0]],
        "x-extension": route.extension,
        "parameters": _parameters(route),
        "responses": {
            str(route.status): _success(route, schemas),
            "default": {
                "description": "An error, with a detail for each invalid field.",
                "headers": HEADERS,
                "content": {"application/json": {"schema": schemas[responses.ErrorBody]}},
            },
        },
    }
    if route.body:
        operation["requestBody"] = {
            "required": not route.extension,
            "content": {"application/json": {"schema": schemas[route.body]}},
        }
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    names = ["subscriptionId", "resourceGroup", "hostingAccount"] + (["id"] if "{id}" in route.path else [])
    text = {"type": "string"}
    in_path: list[dict[str, Any]] = [{"name": name, "in": "path", "required": True, "schema": text} for name in names]
    version = {"name": "api-version", "in": "query", "required": True, "schema": {"const": API_VERSION}}
    in_query = [
        {"name": name, "in": "query", "description": meaning, "schema": text} for name, meaning in route.query.items()
    ]
    client_request_id = {
        "name": "x-ms-client-request-id",
        "in": "header",
        "description": "An ID chosen by the client. A request repeated with the same ID takes effect once.",
        "schema": {"type": "string", "maxLength": 100},
    }
    return [*in_path, version, *in_query] + ([] if route.method == "GET" else [client_request_id])


def _success(route: Route, schemas: Schemas) -> dict[str, Any]:
    if route.status == 202:
        return {"description": "Accepted. The body is empty; poll the operation.", "headers": HEADERS | LOCATION}
    if route.response is None:
        return {"description": "Done. The body is empty.", "headers": HEADERS}
    if route.response is str:
        return {"description": "Text.", "headers": HEADERS, "content": {"text/plain": {"schema": {"type": "string"}}}}
    schema: dict[str, Any] = schemas[_model(route.response)]
    if get_args(route.response):
        schema = {"type": "array", "items": schema}
        # The response to a request with changedSince.
        schema = {"anyOf": [schema, schemas[responses.ChangesBody]]}
    return {"description": "Done.", "headers": HEADERS, "content": {"application/json": {"schema": schema}}}
