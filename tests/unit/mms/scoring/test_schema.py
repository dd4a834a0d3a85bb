"""The schema asset: invalid files are refused by field and keyword, and requests never share values."""

import json
from pathlib import Path
from typing import Any

import pytest

from mms.scoring.schema import InputError, Schema, SchemaError, check


@pytest.mark.parametrize(
    ("field", "word", "reason"),
    [
        ({"type": "number", "minimum": "0"}, "minimum", 'must be a number, not "0".'),
        ({"maximum": None}, "maximum", "must be a number, not null."),
        ({"minimum": True}, "minimum", "must be a number, not true."),
        ({"maximum": float("inf")}, "maximum", "must be a number"),
        ({"type": "int"}, "type", 'did you mean "integer"?'),
        ({"type": "String"}, "type", 'did you mean "string"?'),
        ({"type": []}, "type", "or a list of these, not []."),
        ({"type": ["string", 1]}, "type", "or a list of these"),
        ({"type": {"a": 1}}, "type", "must be string, number"),
        ({"nullable": "yes"}, "nullable", "must be true or false"),
        ({"enum": "a"}, "enum", "must be a list of the valid values"),
        ({"enum": []}, "enum", "must be a list of the valid values"),
        ({"items": [{"type": "number"}]}, "items", "must be one JSON schema for all items"),
        ({"items": True}, "items", "must be one JSON schema for all items"),
        ({"minItems": -1}, "minItems", "must be an integer from 0"),
        ({"maxItems": 1.5}, "maxItems", "must be an integer from 0"),
        ({"properties": ["a"]}, "properties", "must be a JSON object"),
        ({"required": True}, "required", "must be a list of names"),
        ({"required": [1]}, "required", "must be a list of names"),
        ({"minimum": 3, "maximum": 2}, "minimum", "is larger than maximum"),
        ({"minItems": 3, "maxItems": 2}, "minItems", "is larger than maxItems"),
    ],
    ids=str,
)
def test_an_invalid_keyword_is_refused_by_field_and_keyword(field: dict[str, Any], word: str, reason: str) -> None:
    with pytest.raises(SchemaError) as raised:
        check({"input": {"age": field}})
    assert (raised.value.place, raised.value.word) == ("input.age", word)
    assert str(raised.value).startswith(f"input.age.{word} ")
    assert reason in str(raised.value)


def test_a_nested_keyword_is_refused_with_its_place() -> None:
    rows = {"type": "array", "items": {"properties": {"price": {"minimum": "low"}}}}
    with pytest.raises(SchemaError, match=r"^input\.rows\.items\.properties\.price\.minimum must be a number"):
        check({"input": {"rows": rows}})


@pytest.mark.parametrize(
    ("description", "reason"),
    [
        ([], "it must be a JSON object, not []."),
        ({"type": "object", "properties": {}}, 'it has none of the keys "input", "output" and "example". Put'),
        ({"input": ["a"]}, "input must be a JSON object with a schema for each field"),
        ({"input": {"a": "number"}}, 'input.a must be a JSON schema such as {"type": "number"}, not "number".'),
        ({"input": {"a": {"properties": {"b": 1}}}}, "input.a.properties.b must be a JSON schema"),
        ({"output": []}, "output must be a JSON schema"),
    ],
)
def test_a_value_of_another_shape_is_refused(description: Any, reason: str) -> None:
    with pytest.raises(SchemaError) as raised:
        check(description)
    assert str(raised.value).startswith(reason)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is not JSON"),
        (b'{"input": ', "it is not JSON"),
        (b'{"example": NaN}', "it is not JSON: NaN"),
        (b"{\xe9}", "it isn't UTF-8 text"),
        (b"\xff\xfe{\x00}", "it isn't UTF-8 text ('utf-16-le' codec can't decode"),
        (b"[" * 100_000, "it is not JSON: it is nested too deeply"),
        (b'{"input": {"a": {"minimum": "0"}}}', "input.a.minimum must be a number"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_file_that_is_no_schema_is_refused_by_its_name(data: bytes, reason: str) -> None:
    with pytest.raises(SchemaError) as raised:
        Schema.parse(data)
    assert str(raised.value).startswith(f"The schema asset schema.json can't be used: {reason}")


def test_a_deeply_nested_schema_is_refused() -> None:
    description: dict[str, Any] = {}
    for _ in range(65):
        description = {"items": description}
    with pytest.raises(SchemaError, match="nested more than 64 levels deep"):
        Schema({"input": {"a": description}})


def test_a_missing_file_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"The schema asset none\.json can't be read: No such file"):
        Schema.read(tmp_path / "none.json")


def test_a_file_with_a_byte_order_mark_and_one_of_azure_are_read() -> None:
    azure = {"input": {"age": {"internal": "gASV", "swagger": {"type": "integer", "example": 5}, "type": 1}}}
    for codec in ("utf-8-sig", "utf-16", "utf-16-be"):
        schema = Schema.parse(json.dumps(azure).encode(codec))
    assert schema.arguments('{"age": 7}') == {"age": 7}
    with pytest.raises(InputError, match="age must be integer, not string"):
        schema.arguments('{"age": "7"}')


@pytest.mark.parametrize("default", [[], {}, {"a": [1]}, [[]]])
def test_a_default_is_never_shared_between_requests(default: Any) -> None:
    schema = Schema({"input": {"history": {"default": default}}})
    first = schema.arguments("{}")["history"]
    first.clear() if not default else first.pop(next(iter(first)) if isinstance(first, dict) else 0)
    (first.update if isinstance(first, dict) else first.extend)({"secret": 1})
    assert schema.arguments("{}")["history"] == default
    assert schema.document("", "/")["definitions"]["ServiceInput"]["example"] == {"history": default}


def test_keywords_that_are_not_validated_are_accepted_in_any_form() -> None:
    schema = Schema({"input": {"a": {"pattern": 5, "anyOf": "x", "$ref": 1, "default": None}}})
    assert schema.arguments("{}") == {"a": None}


def test_a_generated_example_is_small() -> None:
    image = {
        "type": "array",
        "minItems": 10**9,
        "items": {"type": "array", "minItems": 500, "items": {"type": "array", "minItems": 900}},
    }
    example = Schema({"input": {"image": image}}).example()
    assert len(json.dumps(example)) < 10_000
