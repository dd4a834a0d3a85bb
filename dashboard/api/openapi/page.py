"""The OpenAPI document prepared for the API page: operations by noun, and response objects."""

import json
from typing import Any

from dashboard.api.openapi.declare import Schema

JSON = "application/json"
COMPONENTS = "#/components/schemas/"


def groups_of(document: Schema) -> list[dict[str, Any]]:
    """Return the operations by tag."""
    groups: dict[str, list[dict[str, Any]]] = {tag["name"]: [] for tag in document["tags"]}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            groups[operation["tags"][0]].append(_operation(document, method, path, operation))
    return [{"noun": noun, "operations": operations} for noun, operations in groups.items()]


def objects_of(document: Schema) -> list[dict[str, Any]]:
    """Return the schemas that aren't request bodies."""
    schemas = document["components"]["schemas"]
    request_bodies = {name for name, schema in schemas.items() if schema.get("additionalProperties") is False}
    return [
        {"name": name, "about": schema.get("description", ""), "fields": _fields(schema)}
        for name, schema in schemas.items()
        if name not in request_bodies
    ]


def _operation(document: Schema, method: str, path: str, operation: Schema) -> dict[str, Any]:
    (status, good), *others = operation["responses"].items()
    content = good.get("content", {}).get(JSON, {})
    return {
        "id": operation["operationId"],
        "method": method.upper(),
        "path": path,
        "summary": operation["summary"],
        "description": operation["description"].partition("\n")[0],
        "needs": operation["x-needs"],
        "parameters": [_parameter(parameter) for parameter in operation["parameters"] if parameter["in"] != "path"],
        "bodies": _bodies(document, operation),
        "status": status,
        "good": good["description"],
        "headers": good.get("headers", {}),
        "response": content.get("schema", {}).get("$ref", "").removeprefix(COMPONENTS),
        "example": _json(content["example"]) if "example" in content else "",
        "errors": [status for status, _ in others if status.startswith("4")],
    }


def _parameter(parameter: Schema) -> dict[str, Any]:
    return {"name": parameter["name"], "about": parameter.get("description", ""), **_type(parameter["schema"])}


def _bodies(document: Schema, operation: Schema) -> list[dict[str, Any]]:
    content = operation.get("requestBody", {}).get("content", {}).get(JSON)
    if content is None:
        return []
    schemas = content["schema"].get("oneOf", [content["schema"]])
    examples = [example["value"] for example in content.get("examples", {}).values()] or [content["example"]]
    return [
        {
            "kind": example.get("kind", "") if isinstance(example, dict) else "",
            "fields": _fields(_resolved(document, schema)),
            "example": _json(example),
        }
        for schema, example in zip(schemas, examples, strict=True)
    ]


def _resolved(document: Schema, schema: Schema) -> Schema:
    reference = schema.get("$ref")
    resolved: Schema = (
        document["components"]["schemas"][reference.removeprefix(COMPONENTS)] if isinstance(reference, str) else schema
    )
    return resolved


def _fields(schema: Schema) -> list[dict[str, Any]]:
    required = schema.get("required", [])
    return [
        {"name": name, "required": name in required, "about": part.get("description", ""), **_type(part)}
        for name, part in schema.get("properties", {}).items()
    ]


def _type(schema: Schema) -> dict[str, str]:
    """Return a description of the type. `link`: the name of the object type, also for a list of objects."""
    options = schema.get("anyOf", [schema])
    items = [option.get("items", {}) if option.get("type") == "array" else option for option in options]
    nested = [choice for item in items for choice in item.get("anyOf", [item])]
    links = [choice["$ref"].removeprefix(COMPONENTS) for choice in nested if "$ref" in choice]
    return {"type": " or ".join(_type_name(option) for option in options), "link": links[0] if links else ""}


def _type_name(schema: Schema) -> str:
    if "$ref" in schema:
        return str(schema["$ref"].removeprefix(COMPONENTS))
    if "anyOf" in schema:
        return " or ".join(_type_name(option) for option in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(schema["enum"])
    if "const" in schema:
        return f'"{schema["const"]}"'
    if schema.get("type") == "array" and "enum" in schema["items"]:
        return f"one or more of {_type_name(schema['items'])}"
    if schema.get("type") == "array":
        return f"array of {_type_name(schema['items'])}"
    kind = str(schema.get("format") or schema.get("type") or "any JSON")
    return f"{kind}, at most {schema['maxLength']} characters" if "maxLength" in schema else kind


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
