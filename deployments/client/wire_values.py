"""Single values in an answer of a server: made fit for our tables, whatever was sent. No Django here."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

MAX_ITEMS = 1000  # of a list within a resource: tags, models, assets


class MalformedPayloadError(ValueError):
    """The answer is not what the reference describes. The text says what is wrong with it."""


def fold(data: Any) -> dict[str, Any]:
    """The object with its keys in lower case: servers differ in the first letter, and in `unPack`."""
    if not isinstance(data, Mapping):
        raise MalformedPayloadError("An object was expected.")
    return {str(name).lower(): value for name, value in data.items()}


def text(value: Any, limit: int = 100_000) -> str:
    """Any value as text that a database takes: no NUL, no half of a surrogate pair, not longer than `limit`."""
    told = "" if value is None else value if isinstance(value, str) else str(value)
    return told.replace("\0", "").encode("utf-8", "replace").decode()[:limit]


def optional_text(value: Any, limit: int) -> str | None:
    return None if value is None else text(value, limit)


def resource_id(keys: Mapping[str, Any]) -> str:
    """The id of a resource: a short text without "/" (it becomes part of paths). Raises Garbled."""
    found = text(keys["id"], 1000) if isinstance(keys.get("id"), str | int) else ""
    if not 0 < len(found) <= 200 or not is_usable_id(found):
        raise MalformedPayloadError("A resource has no usable ID.")
    return found


def is_usable_id(value: str) -> bool:
    """Whether a text from outside may become one segment of a path."""
    return bool(re.fullmatch(r"[^\s/\\?#\x00-\x1f]{1,200}", value)) and value not in {".", ".."}


def whole_number(value: Any) -> int | None:
    """A version number, sent as number or text; None where it is neither."""
    found = text(value, 20).strip()
    return int(found) if found.isascii() and found.isdigit() and int(found) < 2**31 else None


def parse_bool(value: Any) -> bool:
    """A bool, sent as such or as "true"."""
    return value is True or text(value, 10).strip().lower() in {"true", "1"}


def parse_datetime(value: Any) -> datetime | None:
    """A date in any ISO form as an aware datetime in UTC; None where it is none, or stands for none (0001-01-01)."""
    said = text(value, 64).strip().upper().replace(" ", "T", 1)
    today = re.sub(r"T24(?=:?00)", "T00", said)
    try:
        found = datetime.fromisoformat(_normalize_iso(today)) + timedelta(days=today != said)
        found = found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return found if 1970 <= found.year < 9999 else None


def _normalize_iso(date: str) -> str:
    """The ISO forms that Python does not read as ones that it does: the day of a year, the 61st second of a minute."""
    if day := re.match(r"(\d{4})-?(\d{3})(?![\d-])", date):
        date = f"{datetime(int(day[1]), 1, 1) + timedelta(days=int(day[2]) - 1):%Y-%m-%d}{date[day.end() :]}"
    return re.sub(r"(T\d\d:?\d\d:?)60", r"\g<1>59", date)


def last_segment(location: str) -> str:
    """The id at the end of a resourceLocation or Operation-Location; "" where there is none."""
    try:
        found = unquote(urlsplit(location).path.rstrip("/").rpartition("/")[2])
    except ValueError:
        return ""
    return found if is_usable_id(found) else ""


def as_list(value: Any) -> list[Any]:
    """A list, up to a sane length; null is none, and a single value stands for a list of one."""
    if value is None:
        return []
    return value[:MAX_ITEMS] if isinstance(value, list) else [value]
