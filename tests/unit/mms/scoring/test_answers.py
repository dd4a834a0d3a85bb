"""Conversion of answers to JSON. Types of numpy and pandas are replaced by classes with the same methods."""

import json
import math
from array import array
from collections import ChainMap, Counter, OrderedDict, UserList, deque, namedtuple
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from itertools import count
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest

from mms.scoring.answers import AnswerError, encode

LIMIT = 10_000
Pair = namedtuple("Pair", "a b")  # not a class: drivers use it like this


class Color(Enum):
    RED = "red"
    TWO = 2


class Number(IntEnum):
    ONE = 1


class Label(StrEnum):
    FIVE = "5"


@dataclass
class Price:
    amount: Any
    tags: list[Any] = field(default_factory=list)


def answer(value: Any) -> Any:
    return json.loads(encode(value, LIMIT))


def error(value: Any) -> str:
    with pytest.raises(AnswerError) as raised:
        encode(value, LIMIT)
    return str(raised.value).removeprefix("run() returned a value that isn't JSON: ")


# --- numpy ------------------------------------------------------------------------------------------------------------


def numpy_type(name: str) -> type:
    """Return a base class that is recognized as numpy's."""
    return type(name, (), {"__module__": "numpy"})


class DType:
    def __init__(self, text: str, names: tuple[str, ...] | None = None) -> None:
        self.kind, self.str, self.names = text[1], text, names
        self.itemsize = int(text[2:]) if text[2:].isdigit() else 8


class Array(numpy_type("ndarray")):  # type: ignore[misc]
    """An array with what `astype` returns for each type."""

    def __init__(self, dtype: str, plain: Any, shape: tuple[int, ...] = (1,), **converted: Any) -> None:
        self.dtype, self.shape, self._plain, self._converted = DType(dtype), shape, plain, converted

    def tolist(self) -> Any:
        return self._plain

    def astype(self, dtype: str) -> "Array":
        return Array("<f8", self._converted[dtype])


class Scalar(numpy_type("generic")):  # type: ignore[misc]
    def __init__(self, dtype: str, plain: Any, **converted: Any) -> None:
        self.dtype, self.shape, self._plain, self._converted = DType(dtype), (), plain, converted

    def __hash__(self) -> int:
        return hash(self._plain)

    def tolist(self) -> Any:
        return self._plain

    def astype(self, dtype: str) -> "Scalar":
        return Scalar("<f8", self._converted[dtype])


def test_arrays_and_scalars_of_numpy_become_lists_and_numbers() -> None:
    assert answer(Array("<f8", [[1.5, 2.5]])) == [[1.5, 2.5]]
    assert answer({"p": Scalar("<f4", 0.5), "n": [Scalar("<i8", 3)]}) == {"p": 0.5, "n": [3]}
    assert error({"p": Array("<f8", [1.0, math.nan])}).startswith("p[1] is NaN")


def test_scalars_of_numpy_can_be_keys() -> None:
    assert answer({Scalar("<i8", 0): 0.1, Scalar("<i8", 1): 0.2}) == {"0": 0.1, "1": 0.2}
    assert answer({Scalar("|b1", True): 1, Scalar("<M8[D]", None, U="2026-11-27"): 2}) == {"true": 1, "2026-11-27": 2}


@pytest.mark.parametrize(
    ("dtype", "text", "expected"),
    [
        ("<M8[D]", "2026-11-27", "2026-11-27"),
        ("<M8[h]", "2026-11-27T05", "2026-11-27T05:00"),
        ("<M8[s]", "2026-11-27T05:06:07", "2026-11-27T05:06:07"),
        ("<M8[ns]", "2026-11-27T05:06:07.500000000", "2026-11-27T05:06:07.5"),
        ("<M8[ns]", "2026-11-27T00:00:00.000000000", "2026-11-27T00:00:00"),
        ("<M8[M]", "2026-11", "2026-11"),
        ("<M8[ns]", "NaT", None),
    ],
)
def test_dates_of_numpy_are_iso_8601_in_any_unit(dtype: str, text: str, expected: str | None) -> None:
    assert answer(Scalar(dtype, 1795755600000000000, U=text)) == expected
    assert answer(Array(dtype, [1795755600000000000], U=[text])) == [expected]


@pytest.mark.parametrize(
    ("dtype", "number", "expected"),
    [
        ("<m8[ns]", 1_500_000_000, "PT1.5S"),
        ("<m8[s]", -1, "-PT1S"),
        ("<m8[15m]", 6, "PT1H30M"),
        ("<m8[D]", 2, "P2D"),
        ("<m8[Y]", 3, "P3Y"),
        ("<m8[us]", 0, "PT0S"),
        ("<m8[h]", 49, "P2DT1H"),
        ("<m8[ns]", -(2**63), None),
    ],
)
def test_durations_of_numpy_are_iso_8601_in_any_unit(dtype: str, number: int, expected: str | None) -> None:
    assert answer([Scalar(dtype, number, i8=number)]) == [expected]


def test_a_long_double_becomes_a_number_and_a_complex_number_is_refused() -> None:
    class LongDouble(Scalar):
        def tolist(self) -> Any:
            return self  # as numpy.longdouble does

    assert answer([LongDouble("<f16", None, f8=1.5)]) == [1.5]
    assert error([Scalar("<c16", 1j)]).startswith("[0] is of type complex. Convert it")


# --- pandas -----------------------------------------------------------------------------------------------------------


class Frame:
    """A data frame: only what the conversion uses."""

    def __init__(self, columns: list[Any], rows: list[list[Any]]) -> None:
        self.columns, self.rows = columns, rows

    def to_dict(self, orient: str) -> list[dict[Any, Any]]:
        assert orient == "records"
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


class Series:
    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def tolist(self) -> list[Any]:
        return self.values

    def to_dict(self) -> dict[int, Any]:
        raise AssertionError("a series is a list")


class NaTType(datetime):
    """pandas.NaT is a datetime that doesn't equal itself."""

    def __eq__(self, other: object) -> bool:
        return False

    def __ne__(self, other: object) -> bool:
        return True

    __hash__ = datetime.__hash__


NAType = type("NAType", (), {})
NAT = NaTType(1970, 1, 1)


def test_a_data_frame_becomes_a_list_of_rows() -> None:
    frame = Frame(["name", "day"], [["a", datetime(2026, 11, 27, tzinfo=UTC)], ["b", NAT]])
    assert answer(frame) == [{"name": "a", "day": "2026-11-27T00:00:00+00:00"}, {"name": "b", "day": None}]
    assert answer({"rows": Frame(["p"], [[NAType()]])}) == {"rows": [{"p": None}]}
    assert answer(Series([1, NAT])) == [1, None]
    assert answer(Frame([], [])) == []


def test_a_data_frame_with_duplicate_columns_is_rejected_by_name() -> None:
    assert error(Frame(["p", "p", "q"], [[1, 2, 3]])).startswith(
        'the answer is a table with more than one column named "p". Rename'
    )
    assert "column named 7" in error({"t": Frame([7, 8, 7], [])})


def test_columns_that_become_equal_in_json_are_refused() -> None:
    assert error(Frame([1, "1"], [[1, 2]])) == '[0] has two keys that are "1" in JSON: 1 and "1". Rename one of them.'


def test_nan_in_a_data_frame_is_refused_with_row_and_column() -> None:
    reason = error(Frame(["name", "price"], [["a", 1.0], ["b", math.nan]]))
    assert reason == "[1].price is NaN. Replace it before you return it, for example with None."


def test_tables_of_other_packages_are_converted_by_their_own_methods() -> None:
    class Polars:
        columns = ("a", "b")

        def to_dict(self, *, as_series: bool = True) -> dict[str, Any]:
            raise AssertionError("as_series would have been 'records'")

        def to_dicts(self) -> list[dict[str, Any]]:
            return [{"a": 1, "b": date(2026, 1, 1)}]

    class Arrow:
        column_names = ("p", "p")

        def to_pylist(self) -> list[Any]:
            return [{"p": 1}]

    class Pydantic:
        def model_dump(self) -> dict[str, Any]:
            return {"when": date(2026, 1, 1)}

    assert answer(Polars()) == [{"a": 1, "b": "2026-01-01"}]
    assert 'more than one column named "p"' in error(Arrow())
    assert answer([Pydantic()]) == [{"when": "2026-01-01"}]


# --- Python -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, 600, UTC), "2026-01-02T03:04:05.000600+00:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (time(1, 2), "01:02:00"),
        (timedelta(days=1, seconds=1.5), "P1DT1.5S"),
        (Decimal("1.10"), "1.10"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (PurePosixPath("/app/x"), "/app/x"),
        (Color.RED, "red"),
        (Color.TWO, 2),
        (Number.ONE, 1),
        (Label.FIVE, "5"),
        ([Price(Decimal(1), [Color.RED])], [{"amount": "1", "tags": ["red"]}]),
        (Pair(1, 2), [1, 2]),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset("ba"), ["a", "b"]),
        ({"a": 1}.keys(), ["a"]),
        ({"a": 1}.values(), [1]),
        ({"b": 1, "a": 2}.items(), [["b", 1], ["a", 2]]),
        (range(3), [0, 1, 2]),
        (deque([1]), [1]),
        (UserList([date(2026, 1, 1)]), ["2026-01-01"]),
        (map(str, [1, 2]), ["1", "2"]),
        ((number for number in range(2)), [0, 1]),
        (array("d", [1.5]), [1.5]),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (ChainMap({"a": 1}, {"b": 2}), {"a": 1, "b": 2}),
        (Counter("aa"), {"a": 2}),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        ([b"text", memoryview(b"m")], ["text", "m"]),
        ({1: "a", 2.5: "b", True + 2: "c", None: "d", date(2026, 1, 1): "e", Color.TWO: "f", UUID(int=0): "g"}, None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_of_the_standard_library_become_the_usual_json(value: Any, expected: Any) -> None:
    if expected is None:
        expected = {"1": "a", "2.5": "b", "3": "c", "null": "d", "2026-01-01": "e", "2": "f", str(UUID(int=0)): "g"}
    assert answer(value) == expected


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (object(), "the answer is of type object. Convert it"),
        ([{"model": object()}], "[0].model is of type object. Convert it"),
        ({"a b": [-math.inf]}, '["a b"][0] is infinite. Replace it'),
        (Decimal("sNaN"), "the answer is NaN"),
        ({math.nan: 1}, "the answer has the key nan, which is NaN"),
        ({(1, 2): 3}, "the answer has the key (1, 2) of type tuple. Use text as keys."),
        ([b"\xff"], "[0] is bytes that aren't UTF-8 text"),
        (b"\xff", "the answer is bytes that aren't UTF-8 text"),
        ({"n": 10**5000}, "n is an integer with thousands of digits"),
        ({10**5000: 1}, "the answer has the key of type int, which is an integer with thousands of digits"),
        (Price, "the answer is of type type"),
        (open, "the answer is of type builtin_function_or_method"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_values_are_refused_with_type_and_place(value: Any, reason: str) -> None:
    assert error(value).startswith(reason)


@pytest.mark.parametrize("value", [{1: 0, "1": 0}, {True: 0, "true": 0}, {None: 0, "null": 0}, {1.0: 0, "1.0": 0}])
def test_keys_that_become_equal_in_json_are_refused_at_any_depth(value: dict[Any, int]) -> None:
    assert "has two keys that are" in error(value)
    assert error({"a": [{"b": 1}, {"text": "{[", "c": (value,)}]}).startswith("a[1].c[0] has two keys that are")


def test_circular_and_very_deep_values_are_refused() -> None:
    circular: list[Any] = [1]
    circular.append({"again": circular})
    assert error(circular).startswith("[1].again contains itself")
    deep: Any = Decimal(1)
    for _ in range(5000):
        deep = [deep]
    assert "is nested too deeply" in error(deep)


def test_the_same_object_twice_is_not_circular() -> None:
    shared = [Decimal(1)]
    assert answer([shared, shared]) == [["1"], ["1"]]


def test_an_async_generator_is_refused_with_what_to_do() -> None:
    async def stream() -> AsyncIterator[int]:
        yield 1

    assert "is an async generator (async_generator). Return a list" in error(stream())


# --- text and size ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["5", "true", "null", "NaN", '"quoted"', "", "[1", "{'a': 1}", "[setosa]", "\ud800"])
def test_text_stays_text(text: str) -> None:
    assert answer(text) == text
    if text.isascii():
        assert answer(text.encode()) == text


@pytest.mark.parametrize("text", ['{"a": 1}', " [1]", "[]", '{"a": "é"}'])
def test_text_that_is_a_json_object_or_array_is_returned_unchanged(text: str) -> None:
    assert encode(text, LIMIT) == text.encode()
    assert encode(bytearray(text.encode()), LIMIT) == text.encode()
    assert answer('["\ud800"]') == ["\ud800"]  # UTF-8 can't encode it, JSON can


def test_json_text_with_nan_is_refused_with_the_place() -> None:
    assert error(json.dumps({"rows": [{"price": math.nan}]})).startswith("rows[0].price is NaN")


def test_an_answer_above_the_limit_is_refused_by_the_limit() -> None:
    assert encode("x" * (LIMIT - 2), LIMIT)
    for large in ("x" * LIMIT, ["x" * LIMIT], count()):
        with pytest.raises(AnswerError, match=f"^The response is larger than {LIMIT} bytes, the limit") as raised:
            encode(large, LIMIT)
        assert raised.value.code == "AnswerTooLarge"
