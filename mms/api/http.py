"""Requests, responses and routes as views see them."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any, TypeVar
from uuid import UUID

from django.conf import settings
from django.utils.crypto import salted_hmac
from pydantic import BaseModel, ValidationError

from mms import audit
from mms.api.errors import bad_field, from_validation
from mms.system import text
from mms.tokens import Grant

API_VERSION = "2017-06-01-privatepreview"
EXTENSIONS = ("idempotency", "operation-ids", "change-feed")  # named in the header x-mms-extensions of each response
REQUEST_BODY = TypeVar("REQUEST_BODY", bound=BaseModel)
_ID = re.compile(r"[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")


@dataclass(frozen=True)
class Request:
    """An authorized request with its whole body."""

    grant: Grant
    account_url: str  # absolute, without a trailing slash
    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    client_request_id: str | None = None
    if_none_match: str = ""
    action: str = ""  # name of the route, which is the action in the audit log
    address: str = ""  # IP address of the client

    def record(self, target: str = "", result: str = audit.DONE, **details: str) -> None:
        """Store an audit entry about this request. Call it in the transaction of the change."""
        if self.client_request_id:
            details["client_request_id"] = self.client_request_id
        audit.record(
            self.action,
            actor=audit.token_label(self.grant.token_id, self.grant.token_name),
            names=(self.grant.subscription, self.grant.resource_group, self.grant.account),
            target=target,
            address=self.address,
            result=result,
            after=details,
        )

    @property
    def account_id(self) -> int:
        """The primary key of the hosting account."""
        return self.grant.account_id

    @property
    def is_legacy_client(self) -> bool:
        """True for the command-line clients of 2017, which send no api-version and expect other statuses."""
        return "api-version" not in self.query

    def parse_body(self, kind: type[REQUEST_BODY]) -> REQUEST_BODY:
        """Return the body as `kind`. Raises ApiError 400 that names each invalid field."""
        content = _without_mark(self.body)
        try:
            body = kind.model_validate_json(content)
        except ValidationError as error:
            raise from_validation(error) from None
        _reject_duplicate_fields(content)
        return body

    def id_parameter(self, name: str) -> UUID | None:
        """Return the query parameter `name` as an ID, None if absent. Raises ApiError 400 if it isn't an ID."""
        value = self.query.get(name)
        if not value:
            return None
        if (id := parse_id(value)) is None:
            raise bad_field(name, "must be an ID (GUID).")
        return id

    def ids_parameter(self, name: str, maximum: int) -> list[UUID]:
        """Return the query parameter `name`, 1 to `maximum` IDs separated by commas, without duplicates.

        Raises ApiError 400 if it isn't.
        """
        text = self.query.get(name)
        if not text:
            raise bad_field(name, "is required.", "Required")
        parts = text.split(",")
        if len(parts) > maximum:
            raise bad_field(name, f"must have at most {maximum} IDs. This has {len(parts)}.", "TooLong")
        ids = dict.fromkeys(map(parse_id, parts))
        if None in ids:
            raise bad_field(name, "must be IDs (GUIDs) separated by commas.")
        return [id for id in ids if id is not None]

    def integer_parameter(self, name: str, default: int, maximum: int) -> int:
        """Return the query parameter `name`, a whole number from 0 to `maximum`. Raises ApiError 400 if it isn't."""
        value = self.query.get(name, str(default))
        if not re.fullmatch(r"[0-9]{1,18}", value) or int(value) > maximum:
            raise bad_field(name, f"must be a whole number from 0 to {maximum}.")
        return int(value)

    @cached_property
    def digests(self) -> list[str]:
        """Digests that identify this request: the first keyed with SECRET_KEY, the others with its fallbacks.

        They are keyed because the body may contain a password.
        """
        content = f"{self.method} {self.path} ".encode() + sha256(self.body).digest()
        keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
        return [salted_hmac("mms.api.request", content, secret=key, algorithm="sha256").hexdigest() for key in keys]


@dataclass(frozen=True)
class Response:
    """A response. At most one of `body`, `raw` and `parts` is set."""

    status: int = 200
    body: Any = None  # a pydantic model or a list of them; None if empty
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None  # an encoded body
    parts: Iterator[bytes] | None = None  # an encoded body whose parts are produced while it is sent


@dataclass(frozen=True)
class Route:
    """One operation of the API. `path` follows the hosting account, with {id} for an ID."""

    method: str
    path: str
    view: Callable[..., Response]
    summary: str
    response: Any = None  # type of the response body: a model, a list of one, or str; None if empty
    status: int = 200
    body: type[BaseModel] | None = None
    query: dict[str, str] = field(default_factory=dict)  # descriptions of the parameters, by name
    extension: bool = False  # True if not in the reference
    secret: bool = False  # True if the response has credentials, which read-only tokens may not read

    @property
    def is_for_readers(self) -> bool:
        """True if read-only tokens are allowed."""
        return self.method == "GET" and not self.secret

    @property
    def is_audited(self) -> bool:
        """True if the view stores an audit entry, which needs the thread that writes."""
        return self.method != "GET" or self.secret

    @property
    def name(self) -> str:
        """The name of the view, which is the operation's ID in the OpenAPI document."""
        return self.view.__name__


def _without_mark(body: bytes) -> bytes:
    """Return `body` as UTF-8 without a byte order mark; unchanged if it isn't text, which the JSON parser reports."""
    try:
        return text.decode(body).encode()
    except text.UndecodableTextError:
        return body


def accepted(request: Request, operation_id: UUID) -> Response:
    """Return an empty 202 with the operation's ID, as in the API reference, and its URL, for clients of 2017."""
    location = f"{request.account_url}/operations/{operation_id}"
    return Response(202, headers={"x-ms-request-id": str(operation_id), "Operation-Location": location})


def _reject_duplicate_fields(body: bytes) -> None:
    """Raise ApiError 400 if an object has a field twice: JSON parsers differ in which of the two they use."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise bad_field(name[:200], "must not occur twice.")
            seen.add(name)
        return {}

    json.loads(body.decode(), object_pairs_hook=unique, parse_int=str, parse_float=str)


def parse_id(value: str) -> UUID | None:
    """Return the GUID in `value`, with or without hyphens; None if it isn't one."""
    return UUID(value) if _ID.fullmatch(value) else None
