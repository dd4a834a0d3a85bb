"""Conversion of what `run()` returned to JSON. The rules, for users: docs/deploy/driver.md.

Values that JSON's own encoder supports take the fast path through it. Others are converted, with their place known, so
that an error can name it. Packages such as numpy and pandas aren't imported: their types are recognized by their
methods.
"""

import dataclasses
import io
import json
import math
import re
from collections import deque
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import chain, islice
from pathlib import PurePath
from typing import Any
from uuid import UUID

from .errors import shorten

# Compared by exact type: a subclass may have its own meaning.
SCALARS = frozenset({str, int, float, bool, type(None)})
_TEXT = frozenset({str})
_TEXTS = (str, bytes, bytearray, memoryview)
_CONTAINERS = (dict, list, tuple)
NOT_A_TIME = "NaT"
MAX_INT_BITS = 14_000  # Python doesn't print longer integers
MAX_PLACE_CHARS = 200
# Nanoseconds per unit of numpy's timedelta64. Finer units, months and years have no fixed number of these.
UNITS = {
    "W": 7 * 86400 * 10**9,
    "D": 86400 * 10**9,
    "h": 3600 * 10**9,
    "m": 60 * 10**9,
    "s": 10**9,
    "ms": 10**6,
    "us": 10**3,
    "ns": 1,
}
_encode = json.JSONEncoder(allow_nan=False).encode


class AnswerError(Exception):
    """`run()` returned something that isn't JSON. `path` is its place: the keys, innermost first."""

    def __init__(self, reason: str, code: str = "DriverFailed") -> None:
        """`reason` follows the place: "is NaN. Replace it."."""
        super().__init__(reason)
        self.reason, self.code = reason, code
        self.path: list[Any] = []

    def __str__(self) -> str:
        if self.code != "DriverFailed":
            return self.reason
        return f"run() returned a value that isn't JSON: {_place(self.path)} {self.reason}"


def encode(result: Any, limit: int) -> bytes:
    """Return the JSON of what `run()` returned. Raises AnswerError, also if it is larger than `limit` bytes."""
    encoded = _text(result) if isinstance(result, _TEXTS) else _json(result, limit).encode()
    if len(encoded) > limit:
        raise _too_large(limit)
    return encoded


def _too_large(limit: int) -> AnswerError:
    message = f"The response is larger than {limit} bytes, the limit for services. Return less per request."
    return AnswerError(message, "AnswerTooLarge")


def _text(result: str | bytes | bytearray | memoryview) -> bytes:
    """Return a JSON object or array unchanged, and other text as a JSON string."""
    text = result if isinstance(result, str) else _decode(result)
    if text.lstrip(" \t\r\n")[:1] in ("{", "["):
        constants: list[str] = []
        try:
            value = json.loads(text, parse_constant=constants.append)
        except (ValueError, RecursionError):
            pass
        else:
            if constants:
                Conversion(len(text)).value(json.loads(text))  # raises AnswerError with the place
            return text.encode() if _is_encodable(text) else _encode(value).encode()
    return _encode(text).encode()


def _is_encodable(text: str) -> bool:
    return text.isascii() or not re.search("[\ud800-\udfff]", text)


def _json(result: Any, limit: int) -> str:
    try:
        text = _encode(result)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return _encode(Conversion(limit).value(result))
    if isinstance(result, _CONTAINERS) and _has_other_keys(result, text):
        Conversion(limit).value(result)  # raises AnswerError if two keys become the same
    return text


def _has_other_keys(result: Any, text: str) -> bool:
    """Return True if a dict in `result`, which the encoder made into `text`, has a key that isn't text.

    Examines it level by level with loops in C, which take a fraction of the encoder's time.
    """
    level: Any = [result]
    unseen = text.count("{")  # dicts, or more: text values may have braces
    while unseen and level:
        dicts = [item for item in level if isinstance(item, dict)]
        if not _TEXT.issuperset(map(type, set().union(*dicts))):
            return True
        unseen -= len(dicts)
        if unseen:
            lists = [item for item in level if not isinstance(item, dict)] if len(dicts) < len(level) else []
            children = chain(chain.from_iterable(map(dict.values, dicts)), *lists)
            level = [item for item in children if isinstance(item, _CONTAINERS)]
    return False


def _decode(value: bytes | bytearray | memoryview) -> str:
    try:
        return bytes(value).decode()
    except UnicodeDecodeError:
        raise AnswerError("is bytes that aren't UTF-8 text. Encode them, for example with base64.") from None


class Conversion:
    """Conversion of one answer."""

    def __init__(self, limit: int) -> None:
        """`limit` is the maximum number of bytes of its JSON."""
        self._limit = limit
        self._open: set[int] = set()  # ids of the containers around the current value

    def value(self, value: Any) -> Any:
        """Return `value` in types that the JSON encoder supports. Raises AnswerError."""
        try:
            return self._value(value)
        except RecursionError:
            raise AnswerError("is nested too deeply. Return a flatter structure.") from None

    def _value(self, value: Any) -> Any:
        kind = type(value)
        if kind is str or kind is bool or value is None:
            return value
        if kind is float:
            return _finite(value)
        if kind is int:
            return _short(value)
        if isinstance(value, Enum):
            return self._value(value.value)
        for types, convert in _CONVERSIONS:
            if isinstance(value, types):
                return convert(value)
        if id(value) in self._open:
            raise AnswerError("contains itself. Return a structure without cycles.")
        self._open.add(id(value))
        try:
            return self._container(value)
        finally:
            self._open.discard(id(value))

    def _container(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return self._mapping(value.items())
        if isinstance(value, Sequence | deque | KeysView | ItemsView | ValuesView):
            return self._list(value)
        if isinstance(value, AbstractSet):
            return self._list(_in_order(value))
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = dataclasses.fields(value)
            return self._mapping((field.name, getattr(value, field.name)) for field in fields)
        if isinstance(value, Iterator) and not isinstance(value, io.IOBase):
            items = list(islice(value, self._limit // 2 + 1))  # an item has at least two bytes
            if len(items) > self._limit // 2:
                raise _too_large(self._limit)
            return self._list(items)
        return self._other(value)

    def _mapping(self, items: Any) -> dict[str, Any]:
        result: dict[str, Any] = {}
        keys: dict[str, Any] = {}
        for key, item in items:
            text = key if type(key) is str else self._key(key)
            if text in result:
                both = f"{_show(keys[text])} and {_show(key)}"
                raise AnswerError(f"has two keys that are {json.dumps(text)} in JSON: {both}. Rename one of them.")
            keys[text] = key
            try:
                result[text] = self._value(item)
            except AnswerError as error:
                error.path.append(text)
                raise
        return result

    def _key(self, key: Any) -> str:
        try:
            plain = key if isinstance(key, str) else self._value(key)
        except AnswerError as error:
            raise AnswerError(f"has the key {_show(key)}, which {error.reason}") from None
        if isinstance(plain, str):
            return str.__str__(plain)
        if type(plain) in SCALARS:
            return _encode(plain)
        raise AnswerError(f"has the key {_show(key)} of type {_name(key)}. Use text as keys.")

    def _list(self, values: Any) -> list[Any]:
        items = [*values]
        if set(map(type, items)) <= {float, str, bool, type(None)} and all(
            map(math.isfinite, filter(lambda item: type(item) is float, items))
        ):
            return items
        result = []
        for item in items:
            try:
                result.append(self._value(item))
            except AnswerError as error:
                error.path.append(len(result))
                raise
        return result

    def _other(self, value: Any) -> Any:
        """Convert a value of another package, recognized by its methods."""
        kind = type(value)
        if _is_numpy(kind):
            return self._array(value)
        if kind.__name__ == "NAType":  # pandas.NA
            return None
        if kind.__name__ == "Period" and hasattr(kind, "start_time"):  # of pandas
            return str(value)
        columns = getattr(value, "columns", None)
        if columns is None:
            columns = getattr(value, "column_names", None)
        if columns is not None:
            _check_columns(list(columns))
        if columns is not None and _has(kind, "to_dict") and not _has(kind, "to_dicts", "to_pylist"):
            return self._list(value.to_dict("records"))
        for method in ("tolist", "to_dicts", "to_pylist", "to_list", "model_dump", "to_dict", "numpy"):
            if _has(kind, method):
                return self._same_place(getattr(value, method)(), kind)
        if hasattr(kind, "__attrs_attrs__"):
            return self._mapping((field.name, getattr(value, field.name)) for field in kind.__attrs_attrs__)
        if _has(kind, "__aiter__"):
            raise AnswerError(f"is an async generator ({_name(value)}). Return a list of its items.")
        raise AnswerError(f"is of type {_name(value)}. Convert it to dict, list, str, int or float.")

    def _same_place(self, converted: Any, kind: type) -> Any:
        if type(converted) is kind:  # a method that returns its own object, such as numpy.longdouble.tolist
            raise AnswerError(f"is of type {kind.__name__}. Convert it to dict, list, str, int or float.")
        return self._value(converted)

    def _array(self, value: Any) -> Any:
        """Convert an array or a scalar of numpy."""
        dtype = value.dtype
        if dtype.kind == "M":  # tolist() would turn some units into numbers
            return _map(value.astype("U").tolist(), _iso_date)
        if dtype.kind == "m":
            step = re.search(r"\[(\d*)(\w+)\]", dtype.str)
            count, unit = (int(step[1] or 1), step[2]) if step else (1, "generic")
            return _map(value.astype("i8").tolist(), lambda number: _iso_duration(number, count, unit))
        if dtype.names:
            rows = value if value.shape else [value]
            converted = [self._list([row[name] for name in dtype.names]) for row in rows]
            return converted if value.shape else converted[0]
        if dtype.kind == "f" and dtype.itemsize > 8:  # tolist() returns longdouble itself
            value = value.astype("f8")
        return self._same_place(value.tolist(), type(value))


def _has(kind: type, *methods: str) -> bool:
    """Return True if the type has any of these methods. Instances may claim to have every attribute."""
    return any(callable(getattr(kind, method, None)) for method in methods)


def _is_numpy(kind: type) -> bool:
    return any(base.__module__ == "numpy" and base.__name__ in ("ndarray", "generic") for base in kind.__mro__)


def _check_columns(columns: list[Any]) -> None:
    if len(set(columns)) < len(columns):
        twice = next(column for number, column in enumerate(columns) if column in columns[:number])
        raise AnswerError(f"is a table with more than one column named {_show(twice)}. Rename the columns.")


def _in_order(items: Any) -> list[Any]:
    """Return the items of a set sorted, so that equal answers have equal JSON, unless they can't be compared."""
    try:
        return sorted(items)
    except TypeError:
        return list(items)


def _map(value: Any, convert: Callable[[Any], Any]) -> Any:
    """Apply `convert` to each value in nested lists."""
    return [_map(item, convert) for item in value] if isinstance(value, list) else convert(value)


def _finite(value: float) -> float:
    if math.isfinite(value):
        return float(value)
    kind = "NaN" if math.isnan(value) else "infinite"
    raise AnswerError(f"is {kind}. Replace it before you return it, for example with None.")


def _short(value: int) -> int:
    if value.bit_length() > MAX_INT_BITS:
        raise AnswerError("is an integer with thousands of digits. Return it as text.")
    return int(value)


def _decimal(value: Decimal) -> str:
    if not value.is_finite():
        _finite(float("nan") if value.is_nan() else math.inf)
    return str(value)


def _iso(value: Any) -> str | None:
    return None if value != value else value.isoformat()  # pandas.NaT is a datetime that doesn't equal itself


def _timedelta(value: timedelta) -> str | None:
    if value != value:  # pandas.NaT
        return None
    microseconds = (value.days * 86400 + value.seconds) * 10**6 + value.microseconds
    return _iso_duration(microseconds * 1000 + getattr(value, "nanoseconds", 0), 1, "ns")


def _iso_date(text: str) -> str | None:
    """Return numpy's text for a datetime64 in ISO 8601: without trailing zeros, None for NaT."""
    if text == NOT_A_TIME:
        return None
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return f"{text}:00" if re.fullmatch(r".*T\d\d", text) else text


def _iso_duration(number: int, count: int, unit: str) -> str | None:
    """Return `number` steps of `count` units of numpy's timedelta64 as a duration in ISO 8601, None for NaT."""
    if number == -(2**63):
        return None
    number *= count
    sign, number = ("-" if number < 0 else ""), abs(number)
    if unit in ("Y", "M"):
        return f"{sign}P{number}{unit}"
    if unit not in UNITS:
        raise AnswerError(f"is a timedelta64 in {unit}. Convert it to a number.")
    total, nanoseconds = divmod(number * UNITS[unit], 10**9)
    days, rest = divmod(total, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, seconds = divmod(rest, 60)
    fraction = f".{nanoseconds:09}".rstrip("0") if nanoseconds else ""
    clock = [f"{hours}H" if hours else "", f"{minutes}M" if minutes else ""]
    clock.append(f"{seconds}{fraction}S" if seconds or fraction or not (days or hours or minutes) else "")
    return f"{sign}P{f'{days}D' if days else ''}{'T' if any(clock) else ''}{''.join(clock)}"


# In order: datetime is a date, and numpy's floats are floats.
_CONVERSIONS: list[tuple[type | tuple[type, ...], Callable[[Any], Any]]] = [
    (str, str.__str__),
    (float, _finite),
    (int, _short),
    ((date, time, datetime), _iso),
    (timedelta, _timedelta),
    (Decimal, _decimal),
    ((UUID, PurePath), str),
    ((bytes, bytearray, memoryview), _decode),
]


def _name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _show(value: Any) -> str:
    try:
        return shorten(json.dumps(value) if type(value) is str else repr(value), 100)
    except Exception:  # in the driver's own __repr__, or an integer that is too long
        return f"of type {_name(value)}"


def _place(path: list[Any]) -> str:
    """Return the place as people write it: [1].price, or a["b c"]."""
    text = ""
    for key in reversed(path):
        if isinstance(key, int):
            text += f"[{key}]"
        else:
            text += f".{key}" if key.isidentifier() else f"[{json.dumps(key)}]"
    return shorten(text.removeprefix("."), MAX_PLACE_CHARS) or "the answer"
