"""One operation of the document: its parameters, request body and responses."""

from typing import Any

from dashboard.api.idempotency import HEADER, MAX_KEY_CHARS
from dashboard.api.openapi.declare import Declaration, Endpoint, Schema

PATH_SCHEMAS: dict[str, Schema] = {
    "slug": {"type": "string", "pattern": "^[-a-zA-Z0-9_]+$", "examples": ["local"]},
    "int": {"type": "integer", "minimum": 0},
    "uuid": {"type": "string", "format": "uuid"},
}
IDEMPOTENCY_KEY = {
    "name": HEADER,
    "in": "header",
    "description": "Any text of yours. Sending the request again with the same text has no further effect for a week.",
    "schema": {"type": "string", "maxLength": MAX_KEY_CHARS},
}
ERRORS = {
    401: "Missing, unknown, expired or revoked token.",
    403: "The role or the scope of the token isn't sufficient.",
    404: "Not found, or not visible to this token.",
    409: "Not possible in the current state.",
    413: "The request body is too long.",
    415: "The request body isn't sent as application/json.",
    422: "Invalid fields. The response has the reasons for each.",
    429: "Too many calls with this token within a minute.",
}
EXAMPLES_BY_FORMAT = {"date-time": "2026-11-02T09:30:00+00:00", "uuid": "6f1c2b1e-8f0a-4c53-9d5e-2f4f8b1a7c10"}
EXAMPLES_BY_TYPE: dict[str, Any] = {"string": "", "integer": 1, "number": 1.0, "boolean": True, "null": None}
OTHER_ERRORS = "Any other error, such as 503 while the database is busy."


def operation_of(endpoint: Endpoint, schemas: dict[Any, Schema], components: dict[str, Schema]) -> Schema:
    """Return the operation. `schemas`: references to the schemas of response types."""
    declared = endpoint.declaration
    summary = endpoint.description.partition(". ")[0].rstrip(".")
    operation: Schema = {
        "operationId": endpoint.operation_id,
        "summary": summary,
        "description": f"{endpoint.description}\n\nNeeds: {endpoint.needs}.",
        "tags": [tag_of(endpoint)],
        "x-permission": str(endpoint.permission),
        "x-needs": endpoint.needs,
        "parameters": _parameters(endpoint, declared),
    }
    if body := _request_body(declared):
        operation["requestBody"] = body
    return operation | {"responses": _responses(endpoint, declared, schemas, components)}


def tag_of(endpoint: Endpoint) -> str:
    """Return the noun that the operation is about."""
    nouns = [part for part in endpoint.route.split("/") if part and not part.startswith("<")]
    if nouns[:1] != ["accounts"]:
        return nouns[0] if nouns else "routes"
    return nouns[1] if len(nouns) > 1 and nouns[1] not in {"refresh", "pause"} else "accounts"


def _parameters(endpoint: Endpoint, declared: Declaration) -> list[Schema]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": PATH_SCHEMAS[kind]}
        for kind, name in endpoint.parameters
    ]
    in_query: list[Schema] = []
    for name, schema in declared.query.items():
        bare = {key: value for key, value in schema.items() if key != "description"}
        described = {"description": schema["description"]} if "description" in schema else {}
        in_query.append({"name": name, "in": "query", **described, "schema": bare})
    return [*in_path, *in_query, *([IDEMPOTENCY_KEY] if declared.repeat else [])]


def _request_body(declared: Declaration) -> Schema | None:
    if declared.any_json:
        return {"required": True, "content": {"application/json": {"schema": {}, "example": {"data": [[1, 2]]}}}}
    if not declared.bodies:
        return None
    references = [{"$ref": f"#/components/schemas/{body.name}"} for body in declared.bodies]
    if len(declared.bodies) == 1:
        content: Schema = {"schema": references[0], "example": dict(declared.bodies[0].example)}
    else:
        kinds = [str(body.example["kind"]) for body in declared.bodies]
        mapping = {kind: reference["$ref"] for kind, reference in zip(kinds, references, strict=True)}
        content = {
            "schema": {"oneOf": references, "discriminator": {"propertyName": "kind", "mapping": mapping}},
            "examples": {
                kind: {"value": dict(body.example)} for kind, body in zip(kinds, declared.bodies, strict=True)
            },
        }
    return {"required": True, "content": {"application/json": content}}


def _responses(
    endpoint: Endpoint, declared: Declaration, schemas: dict[Any, Schema], components: dict[str, Schema]
) -> Schema:
    good: Schema = {"description": "Success."}
    if declared.headers:
        good["headers"] = {
            name: {"description": about, "schema": {"type": "string"}} for name, about in declared.headers.items()
        }
    if declared.response is str:
        good["content"] = {"text/plain": {"schema": {"type": "string"}}}
    elif declared.response is not None:
        schema = schemas[declared.response]
        good["content"] = {"application/json": {"schema": schema, "example": example_of(schema, components)}}
    responses = {str(declared.status): good}
    if declared.repeat:
        responses[str(declared.repeat)] = {**good, "description": f"The {HEADER} was used before: the same operation."}
    refused = {str(status): {"$ref": f"#/components/responses/{status}"} for status in _errors(endpoint, declared)}
    return responses | refused | {"default": {"$ref": "#/components/responses/default"}}


def _errors(endpoint: Endpoint, declared: Declaration) -> list[int]:
    writes = endpoint.method != "GET"
    possible = {
        401: True,
        403: not endpoint.is_open,
        404: bool(endpoint.parameters),
        409: declared.conflicts,
        413: writes,
        415: writes,
        422: writes or bool(declared.query),
        429: True,
    }
    return [status for status, there in possible.items() if there]


def example_of(schema: Schema, components: dict[str, Schema]) -> Any:
    """Return a value that is valid under `schema`; `components` are the schemas that it refers to."""
    if "$ref" in schema:
        schema = components[schema["$ref"].rpartition("/")[2]]
    for key in ("examples", "enum"):
        if key in schema:
            return schema[key][0]
    if "const" in schema:
        return schema["const"]
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return example_of(schema[key][0], components)
    if "properties" in schema:
        return {name: example_of(part, components) for name, part in schema["properties"].items()}
    if schema.get("type") == "array":
        return [example_of(schema["items"], components)]
    if schema.get("type") == "object":
        return {}
    return EXAMPLES_BY_FORMAT.get(schema.get("format", ""), EXAMPLES_BY_TYPE.get(schema.get("type", "")))
