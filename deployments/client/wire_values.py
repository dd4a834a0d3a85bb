"""Parsers for single values in a server's response. They accept any input and return values that fit the database."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

# Fields that name a resource or where it is. They must remain usable, so only long secrets are removed from them.
ID_FIELDS = frozenset(
    {"id", "imageid", "manifestid", "modelids", "resourcelocation", "scoringuri", "nextlink", "removed", "cursor"}
)
STATES = frozenset({"notstarted", "running", "succeeded", "failed", "canceled", "cancelled"})
# Names of all other fields that are read. A weak password may be the same word.
FIELDS = ID_FIELDS | {
    "activatedat",
    "assets",
    "changed",
    "code",
    "createdat",
    "createdtime",
    "description",
    "details",
    "digest",
    "driverprogram",
    "error",
    "hasmore",
    "health",
    "healthdetail",
    "image",
    "imagetype",
    "location",
    "manifest",
    "message",
    "mimetype",
    "mimetypes",
    "name",
    "number",
    "primarykey",
    "properties",
    "registryinfo",
    "revisions",
    "runtimetype",
    "state",
    "statuscode",
    "stoppedat",
    "tags",
    "target",
    "targetruntime",
    "unpack",
    "updatedat",
    "url",
    "user",
    "value",
    "version",
}
MAX_ID_CHARS = 200  # size of the database columns
ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._~:@+=,-]*", re.ASCII)
MAX_ESCAPES = 20  # removed from the end of a text
MAX_ITEMS = 1000  # in a list within a resource: tags, models, assets


class MalformedPayloadError(ValueError):
    """A response doesn't match the API reference. The message explains the difference."""


def fold(data: Any) -> dict[str, Any]:
    """Return the object with lower-case keys, since servers differ in capitalization.

    Raises MalformedPayloadError.
    """
    if not isinstance(data, Mapping):
        raise MalformedPayloadError("An object was expected.")
    return {str(name).lower(): value for name, value in data.items()}


def is_kept(name: str, value: str) -> bool:
    """Return True if a value of this field, or for "" the name of a field, is a word of the API, even if it's a secret.

    Without these words, a response couldn't be read.
    """
    return value.lower() in FIELDS if not name else name == "state" and normalize_state(value) in STATES


def normalize_state(state: str) -> str:
    """Return a server's state in lower case without separators."""
    return re.sub(r"[\s_-]", "", state).lower()


def text(value: Any, limit: int = 100_000) -> str:
    """Convert any value to text that the database accepts: no NUL, no lone surrogate, at most `limit` characters."""
    found = "" if value is None else value if isinstance(value, str) else str(value)
    return found.replace("\0", "").encode("utf-8", "replace").decode()[:limit]


def reason(value: Any, limit: int) -> str:
    """Return a text for users without surrounding white space and trailing escaped line breaks."""
    found = text(value).strip()
    for _ in range(MAX_ESCAPES):
        if not found.endswith(("\\r", "\\n", "\\t")):
            break
        found = found[:-2].rstrip()
    return found[:limit].rstrip()


def optional_text(value: Any, limit: int) -> str | None:
    """Return the value as text, or None if it wasn't reported."""
    return None if value is None else text(value, limit)


def resource_id(keys: Mapping[str, Any]) -> str:
    """Return the id of a resource, which becomes a segment of URLs. Raises MalformedPayloadError."""
    found = text(keys["id"], 1000) if isinstance(keys.get("id"), str | int) else ""
    if not is_usable_id(found):
        raise MalformedPayloadError("A resource has no usable ID.")
    return found


def is_usable_id(value: str) -> bool:
    """Return True if the text is a well-formed ID: up to MAX_ID_CHARS letters, digits and a few other characters."""
    return len(value) <= MAX_ID_CHARS and bool(ID.fullmatch(value))


def whole_number(value: Any) -> int | None:
    """Return a non-negative integer that was sent as number or text; None if it isn't one."""
    found = text(value, 20).strip()
    return int(found) if found.isascii() and found.isdigit() and int(found) < 2**31 else None


def parse_bool(value: Any) -> bool:
    """Return a bool that was sent as bool or as text such as "true"."""
    return value is True or text(value, 10).strip().lower() in {"true", "1"}


def parse_datetime(value: Any) -> datetime | None:
    """Return an ISO date as an aware datetime in UTC; None if it is invalid or a placeholder (0001-01-01)."""
    stripped = text(value, 64).strip().upper().replace(" ", "T", 1)
    normalized = re.sub(r"T24(?=:?00)", "T00", stripped)
    try:
        found = datetime.fromisoformat(_normalize_iso(normalized)) + timedelta(days=normalized != stripped)
        found = found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return found if 1970 <= found.year < 9999 else None


def _normalize_iso(date: str) -> str:
    """Rewrite ISO forms that Python can't parse: ordinal dates and leap seconds."""
    if day := re.match(r"(\d{4})-?(\d{3})(?![\d-])", date):
        date = f"{datetime(int(day[1]), 1, 1) + timedelta(days=int(day[2]) - 1):%Y-%m-%d}{date[day.end() :]}"
    return re.sub(r"(T\d\d:?\d\d:?)60", r"\g<1>59", date)


def last_segment(location: str) -> str:
    """Return the id at the end of a resourceLocation or Operation-Location; "" if there is none."""
    return noun_and_id(location)[1]


def noun_and_id(location: str) -> tuple[str, str]:
    """Return the last two segments of a web address or path, such as ("images", "0c5e7a").

    The noun is "" if the location is just an id. Both are "" if the location has no usable id.
    """
    try:
        parts = urlsplit(location)
    except ValueError:
        return "", ""
    rest, _, last = parts.path.rstrip("/").rpartition("/")
    found = unquote(last)
    if parts.scheme not in {"", "http", "https"} or not is_usable_id(found):
        return "", ""
    return rest.rpartition("/")[2].lower(), found


def as_list(value: Any) -> list[Any]:
    """Return a list of at most MAX_ITEMS. None becomes an empty list, a single value a list of one."""
    if value is None:
        return []
    return value[:MAX_ITEMS] if isinstance(value, list) else [value]
