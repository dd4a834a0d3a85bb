"""The schema asset: defines and validates the fields of a request, and describes the service as an OpenAPI 2 document.

The file is a JSON object; every key is optional::

    {"input": {"<field>": {<JSON schema>, "example": …}, …}, "output": {<JSON schema>}, "example": {<whole input>}}

If `input` has fields, the driver's `run(**fields)` is called with them; a field with a `default` may be omitted. The
keywords in WORDS are validated, the others only appear in the document. Files from Azure's `generate_schema` are
supported as well: in them, each field wraps its schema in `swagger`.

A build and the start of a service read the file with `Schema.read`, so both accept the same files.
"""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .errors import shorten
from .settings import SetupError

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
KEYS = frozenset({"input", "output", "example"})
_WIDE = (b"\0", b"\xfe", b"\xff")  # first bytes of UTF-16 and UTF-32
MAX_DEPTH = 64
SAMPLE_ITEMS = 1000  # of a generated example
VALUE_CHARS = 80  # of a value quoted in a message
NOT_A_SCHEMA = 'must be a JSON schema such as {"type": "number"}'
PYTHON_TYPES = {  # and what people mean by them
    "str": "string",
    "int": "integer",
    "float": "number",
    "double": "number",
    "bool": "boolean",
    "list": "array",
    "dict": "object",
    "none": "null",
}


class InputError(Exception):
    """The request's body isn't what the service accepts. The message names the place and the reason."""

    def __init__(self, message: str, status: int = 400, code: str = "MalformedInput") -> None:
        super().__init__(message)
        self.status, self.code = status, code


class SchemaError(SetupError):
    """The schema asset can't be used.

    `place` is the field, such as "input.age", and `word` the keyword, such as "minimum"; "" if neither is the cause.
    """

    def __init__(self, reason: str, place: str = "", word: str = "") -> None:
        super().__init__(f"{'.'.join(filter(None, (place, word)))} {reason}" if place or word else reason)
        self.place, self.word = place, word


class Schema:
    """The fields of a service, in order. Without fields, the driver receives the unparsed body."""

    def __init__(self, description: Any) -> None:
        """Raise SchemaError if `description`, the value of the JSON file, isn't a valid schema."""
        check(description)
        try:
            self._read(description)
            json.dumps(self.document("", "/"))
        except RecursionError:
            raise SchemaError("it is nested too deeply.") from None

    def _read(self, description: dict[str, Any]) -> None:
        self.fields: dict[str, dict[str, Any]] = {
            name: _unwrap(field) for name, field in (description.get("input") or {}).items()
        }
        self.output: dict[str, Any] = _unwrap(description.get("output") or {})
        self._example = description.get("example")
        defaults = {name: field["default"] for name, field in self.fields.items() if "default" in field}
        # Lists and objects as JSON text, so that each request gets its own.
        self._shared = {name: value for name, value in defaults.items() if not isinstance(value, list | dict)}
        self._copied = {name: json.dumps(value) for name, value in defaults.items() if name not in self._shared}

    @classmethod
    def parse(cls, data: bytes, name: str = "schema.json") -> "Schema":
        """Return the schema in the content of a file. Raises SchemaError, with `name` in the message."""
        try:
            return cls(parse(decode(data), "it"))
        except UnicodeDecodeError as reason:
            message = f"The schema asset {name} can't be used: it isn't UTF-8 text ({reason}). Save it as UTF-8."
            raise SchemaError(message) from None
        except InputError as reason:
            raise SchemaError(f"The schema asset {name} can't be used: {reason}") from None
        except SchemaError as reason:
            message = f"The schema asset {name} can't be used: {reason}"
            named = SchemaError(message)
            named.place, named.word = reason.place, reason.word
            raise named from None

    @classmethod
    def read(cls, path: Path) -> "Schema":
        """Return the schema in a file. Raises SchemaError."""
        try:
            data = path.read_bytes()
        except OSError as reason:
            raise SchemaError(f"The schema asset {path.name} can't be read: {reason.strerror}.") from None
        return cls.parse(data, path.name)

    def arguments(self, text: str) -> dict[str, Any]:
        """Return the keyword arguments for `run()` from a request's body. Raises InputError."""
        sent = parse(text)
        if not isinstance(sent, dict):
            raise InputError(f"The body must be a JSON object with the fields: {', '.join(self.fields)}.")
        if unknown := sent.keys() - self.fields.keys():
            known = ", ".join(self.fields)
            raise InputError(f"Unknown field {', '.join(sorted(unknown))}; the service accepts: {known}.")
        arguments = {}
        for name, schema in self.fields.items():
            if name in sent:
                if reason := mismatch(sent[name], schema, name):
                    raise InputError(reason)
                arguments[name] = sent[name]
            elif name in self._shared:
                arguments[name] = self._shared[name]
            elif name in self._copied:
                arguments[name] = json.loads(self._copied[name])
            else:
                raise InputError(f"The field {name} is missing.")
        return arguments

    def example(self) -> Any:
        """Return a body that the service accepts."""
        return self._example if self._example is not None else {n: sample(s) for n, s in self.fields.items()}

    def document(self, title: str, base: str) -> dict[str, Any]:
        """Return the OpenAPI 2 document. `base` is the path of the service, "/" if it is called directly."""
        required = [name for name, schema in self.fields.items() if "default" not in schema]
        taken: dict[str, Any] = {"type": "object", "properties": self.fields, "example": self.example()}
        if required:
            taken["required"] = required
        if not self.fields:
            taken = {"description": "Defined by the driver, which receives the unparsed body."}
            taken["example"] = self.example()
        definitions = {
            "ServiceInput": taken,
            "ServiceOutput": self.output or {"description": "The driver's answer."},
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
        "400": "The body is malformed; the message names the location.",
        "401": "The key is missing or wrong.",
        "413": "The body is too large.",
        "415": "The body's encoding isn't supported.",
        "500": "The driver failed; the message contains its exception.",
        "503": "The service is starting or busy; retry.",
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
    wrapped = field.get("swagger")
    return wrapped if isinstance(wrapped, dict) else field


def decode(data: bytes, codec: str = "") -> str:
    """Return the text without a byte order mark. Raises UnicodeDecodeError.

    Without a `codec`, it is UTF-8, or UTF-16 or UTF-32 where the first bytes show that.
    """
    if not codec and (data[:1] in _WIDE or data[1:2] == b"\0"):
        codec = json.detect_encoding(data)
    return data.decode(codec or "utf-8").removeprefix("\ufeff")


def parse(text: str, what: str = "The body") -> Any:
    """Return the value of a JSON text. Raises InputError, also for NaN and for nesting beyond the parser's depth."""
    try:
        return json.loads(text, parse_constant=_reject_constant)
    except RecursionError:
        raise InputError(f"{what} is not JSON: it is nested too deeply.") from None
    except ValueError as error:
        raise InputError(f"{what} is not JSON: {error}.") from None


def _reject_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")


# --- the schema itself ------------------------------------------------------------------------------------------------


def check(description: Any) -> None:
    """Raise SchemaError, naming field and keyword, unless `description` is the value of a valid schema asset."""
    if not isinstance(description, dict):
        raise SchemaError(f"it must be a JSON object, not {_quote(description)}.")
    if description and not description.keys() & KEYS:
        raise SchemaError(
            'it has none of the keys "input", "output" and "example". Put the fields of requests in "input".'
        )
    fields = description.get("input")
    if fields is not None and not isinstance(fields, dict):
        raise SchemaError(f"must be a JSON object with a schema for each field, not {_quote(fields)}.", "input")
    output = description.get("output")
    if output is not None and not isinstance(output, dict):
        raise SchemaError(f"must be a JSON schema, not {_quote(output)}.", "output")
    for name, field in (fields or {}).items():
        if not isinstance(field, dict):
            raise SchemaError(f"{NOT_A_SCHEMA}, not {_quote(field)}.", f"input.{name}")
        _check_words(_unwrap(field), f"input.{name}")


def _check_words(schema: Any, place: str, depth: int = 0) -> None:
    """Check the keywords of one schema and those in it."""
    if depth > MAX_DEPTH:
        raise SchemaError(f"it is nested more than {MAX_DEPTH} levels deep.")
    if not isinstance(schema, dict):
        raise SchemaError(f"{NOT_A_SCHEMA}, not {_quote(schema)}.", place)
    for word, requirement in WORDS.items():
        if word in schema and (reason := requirement(schema[word])):
            raise SchemaError(f"{reason}, not {_quote(schema[word])}.", place, word)
    for least, most in (("minimum", "maximum"), ("minItems", "maxItems")):
        if least in schema and most in schema and schema[least] > schema[most]:
            raise SchemaError(f"is larger than {most}, so no value is valid.", place, least)
    for inner, where in _inner_schemas(schema, place):
        _check_words(inner, where, depth + 1)


def _inner_schemas(schema: dict[str, Any], place: str) -> Iterator[tuple[Any, str]]:
    if "items" in schema:
        yield schema["items"], f"{place}.items"
    for name, inner in schema.get("properties", {}).items():
        yield inner, f"{place}.properties.{name}"


def _type_reason(value: Any) -> str:
    names = [value] if isinstance(value, str) else value
    if isinstance(names, list) and names and all(isinstance(name, str) and name in TYPES for name in names):
        return ""
    meant = PYTHON_TYPES.get(value.lower(), value.lower()) if isinstance(value, str) else ""
    hint = f' (did you mean "{meant}"?)' if meant in TYPES else ""
    return f"must be {', '.join(TYPES)} or a list of these{hint}"


def _requires(is_valid: Callable[[Any], bool], reason: str) -> Callable[[Any], str]:
    return lambda value: "" if is_valid(value) else reason


def _is_number(value: Any) -> bool:
    return type(value) is int or (isinstance(value, float) and math.isfinite(value))


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_list_of_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


# The validated keywords. Each function returns the reason why a value isn't valid, "" if it is.
WORDS: dict[str, Callable[[Any], str]] = {
    "type": _type_reason,
    "nullable": _requires(lambda value: isinstance(value, bool), "must be true or false"),
    "enum": _requires(lambda value: isinstance(value, list) and bool(value), "must be a list of the valid values"),
    "items": _requires(lambda value: isinstance(value, dict), "must be one JSON schema for all items"),
    "minItems": _requires(_is_count, "must be an integer from 0"),
    "maxItems": _requires(_is_count, "must be an integer from 0"),
    "properties": _requires(
        lambda value: isinstance(value, dict), "must be a JSON object with a schema for each property"
    ),
    "required": _requires(_is_list_of_names, "must be a list of names of properties"),
    "minimum": _requires(_is_number, "must be a number"),
    "maximum": _requires(_is_number, "must be a number"),
}


def _quote(value: Any) -> str:
    return shorten(json.dumps(value), VALUE_CHARS)


# --- a request's values -----------------------------------------------------------------------------------------------


def mismatch(value: Any, schema: dict[str, Any], where: str) -> str:
    """Return why `value` doesn't match `schema`, as a sentence that starts with its place; "" if it matches."""
    if value is None and schema.get("nullable"):
        return ""
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    if types and not any(_is(value, name) for name in types):
        return f"{where} must be {' or '.join(types)}, not {_type_of(value)}."
    if "enum" in schema and value not in schema["enum"]:
        return f"{where} must be one of {shorten(json.dumps(schema['enum']), 500)}."
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
    return isinstance(value, TYPES[name])


def _type_of(value: Any) -> str:
    return next(name for name in ("boolean", "integer", *TYPES) if _is(value, name))


def sample(schema: dict[str, Any], room: int = SAMPLE_ITEMS) -> Any:
    """Return a value that matches `schema`: its own example if it has one, or one generated from its types.

    Arrays that require more than `room` items get one.
    """
    for key in ("example", "default"):
        if key in schema:
            return schema[key]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type", "object")
    kind = kind if isinstance(kind, str) else kind[0]
    if kind == "array":
        least = max(1, schema.get("minItems", 1))
        count = least if least <= room else 1
        return [sample(schema.get("items", {"type": "number"}), room // count)] * count
    if kind == "object":
        return {name: sample(inner, room) for name, inner in schema.get("properties", {}).items()}
    return schema.get("minimum", SAMPLES.get(kind))
