"""The schema asset: names the fields of a request, checks them, and describes the service as an OpenAPI 2 document.

The file is a JSON object; every key is optional::

    {"input": {"<field>": {<JSON schema>, "example": …}, …}, "output": {<JSON schema>}, "example": {<whole input>}}

Where `input` names fields, the driver's `run(**fields)` is called with them; a field with a `default` may be left out.
Of JSON schema these words are checked: type, nullable, enum, items, minItems, maxItems, properties, required, minimum
and maximum; others only appear in the document. Files written by Azure's `generate_schema` are understood too: there,
each field wraps its schema in `swagger`.
"""

import json
from pathlib import Path
from typing import Any

from .settings import Misconfigured

TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
SAMPLES: dict[str, Any] = {"string": "", "number": 0, "integer": 0, "boolean": False, "null": None}


class Malformed(Exception):
    """The request's body is not what the service takes. The text says where and why."""


class Schema:
    """The fields a service takes, in order; none means that the driver gets the body as it is."""

    def __init__(self, description: dict[str, Any]) -> None:
        self.fields: dict[str, dict[str, Any]] = {
            name: _unwrap(field) for name, field in (description.get("input") or {}).items()
        }
        self.output: dict[str, Any] = _unwrap(description.get("output") or {})
        self._example = description.get("example")

    @classmethod
    def read(cls, path: Path) -> "Schema":
        """Raises Misconfigured when the file is no schema."""
        try:
            return cls(json.loads(path.read_text()))
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise Misconfigured(f"The schema asset {path.name} cannot be used: {error}") from None

    def arguments(self, text: str) -> dict[str, Any]:
        """The keyword arguments for `run()` out of a request's body; raises Malformed."""
        sent = parse(text)
        if not isinstance(sent, dict):
            raise Malformed(f"The body must be a JSON object with the fields: {', '.join(self.fields)}.")
        if unknown := sent.keys() - self.fields.keys():
            known = ", ".join(self.fields)
            raise Malformed(f"Unknown field {', '.join(sorted(unknown))}; the service takes: {known}.")
        arguments = {}
        for name, schema in self.fields.items():
            if name in sent:
                if reason := mismatch(sent[name], schema, name):
                    raise Malformed(reason)
                arguments[name] = sent[name]
            elif "default" in schema:
                arguments[name] = schema["default"]
            else:
                raise Malformed(f"The field {name} is missing.")
        return arguments

    def example(self) -> Any:
        """A body that the service takes."""
        return self._example if self._example is not None else {n: sample(s) for n, s in self.fields.items()}

    def document(self, title: str, base: str) -> dict[str, Any]:
        """The OpenAPI 2 document. `base` is the path that the service is reached under, "/" when called directly."""
        required = [name for name, schema in self.fields.items() if "default" not in schema]
        taken: dict[str, Any] = {"type": "object", "properties": self.fields, "example": self.example()}
        if required:
            taken["required"] = required
        if not self.fields:
            taken = {"description": "Whatever the driver takes; it gets the body as text.", "example": self.example()}
        definitions = {
            "ServiceInput": taken,
            "ServiceOutput": self.output or {"description": "What the driver returns."},
            "Error": _ERROR,
        }
        return {
            "swagger": "2.0",
            "info": {"title": title, "version": "1.0"},
            "basePath": base,
            "schemes": ["http", "https"],
            "consumes": ["application/json"],
            "produces": ["application/json"],
            "securityDefinitions": {"Bearer": {"type": "apiKey", "name": "Authorization", "in": "header"}},
            "security": [{"Bearer": []}],
            "paths": {"/score": {"post": _operation()}},
            "definitions": definitions,
        }


_ERROR = {
    "type": "object",
    "properties": {
        "error": {"type": "object", "properties": {"code": {"type": "string"}, "message": {"type": "string"}}}
    },
}


def _operation() -> dict[str, Any]:
    reasons = {
        "400": "The body is malformed; the message says where.",
        "401": "The key is missing or wrong.",
        "413": "The body is too large.",
        "500": "The driver failed; the message is its own.",
        "503": "Starting, or too many requests are waiting; try again.",
        "504": "The driver took too long.",
    }
    failures = {status: {"description": text, "schema": _reference("Error")} for status, text in reasons.items()}
    body = {"name": "input", "in": "body", "required": True, "schema": _reference("ServiceInput")}
    success = {"description": "The driver's answer.", "schema": _reference("ServiceOutput")}
    return {
        "operationId": "score",
        "summary": "Score the input.",
        "parameters": [body],
        "responses": {"200": success, **failures},
    }


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/definitions/{name}"}


def _unwrap(field: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(field, dict):
        raise TypeError("every field must be a JSON object")
    return field["swagger"] if isinstance(field.get("swagger"), dict) else field


def parse(text: str) -> Any:
    """The value of a JSON text; raises Malformed (also for NaN and for nesting beyond the parser's depth)."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise Malformed("The body is not JSON: it is nested too deeply.") from None
    except ValueError as error:
        raise Malformed(f"The body is not JSON: {error}.") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")


def mismatch(value: Any, schema: dict[str, Any], where: str) -> str:
    """Why `value` does not fit `schema`, as a sentence that starts with its place; "" when it fits."""
    if value is None and schema.get("nullable"):
        return ""
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    if types and not any(_is(value, name) for name in types):
        return f"{where} must be {' or '.join(types)}, not {_type_of(value)}."
    if "enum" in schema and value not in schema["enum"]:
        return f"{where} must be one of {json.dumps(schema['enum'])}."
    if isinstance(value, list):
        return _mismatch_of_array(value, schema, where)
    if isinstance(value, dict):
        return _mismatch_of_object(value, schema, where)
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value < schema.get("minimum", value):
            return f"{where} must be at least {schema['minimum']}."
        if value > schema.get("maximum", value):
            return f"{where} must be at most {schema['maximum']}."
    return ""


def _mismatch_of_array(value: list[Any], schema: dict[str, Any], where: str) -> str:
    least, most = schema.get("minItems", 0), schema.get("maxItems", len(value))
    if len(value) < least:
        return f"{where} must have at least {least} items, not {len(value)}."
    if len(value) > most:
        return f"{where} must have at most {most} items, not {len(value)}."
    if items := schema.get("items"):
        for index, item in enumerate(value):
            if reason := mismatch(item, items, f"{where}[{index}]"):
                return reason
    return ""


def _mismatch_of_object(value: dict[str, Any], schema: dict[str, Any], where: str) -> str:
    for name in schema.get("required", ()):
        if name not in value:
            return f"{where}.{name} is missing."
    for name, inner in schema.get("properties", {}).items():
        if name in value and (reason := mismatch(value[name], inner, f"{where}.{name}")):
            return reason
    return ""


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, TYPES.get(name, ()))


def _type_of(value: Any) -> str:
    return next(name for name in ("boolean", "integer", *TYPES) if _is(value, name))


def sample(schema: dict[str, Any]) -> Any:
    """A value that fits `schema`: its own example where it has one, else one made from its types."""
    for key in ("example", "default"):
        if key in schema:
            return schema[key]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type", "object")
    kind = kind if isinstance(kind, str) else kind[0]
    if kind == "array":
        return [sample(schema.get("items", {"type": "number"}))] * max(1, schema.get("minItems", 1))
    if kind == "object":
        return {name: sample(inner) for name, inner in schema.get("properties", {}).items()}
    return schema.get("minimum", SAMPLES.get(kind))
