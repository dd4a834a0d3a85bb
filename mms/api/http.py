"""What routes see of HTTP: a request with its account, an answer, and the description of a route."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any, TypeVar
from uuid import UUID

from django.conf import settings
from django.utils.crypto import salted_hmac
from pydantic import BaseModel, ValidationError

from mms.api.errors import bad_field, from_validation
from mms.tokens import Grant

API_VERSION = "2017-06-01-privatepreview"
REQUEST_BODY = TypeVar("REQUEST_BODY", bound=BaseModel)


@dataclass(frozen=True)
class Request:
    grant: Grant
    account_url: str  # absolute, without a slash at the end
    method: str
    path: str
    query: dict[str, str]
    body: bytes
    client_request_id: str | None = None

    @property
    def account_id(self) -> int:
        return self.grant.account_id

    @property
    def is_legacy_client(self) -> bool:
        """Sent by a command-line client of 2017: they send no api-version, and read some statuses differently."""
        return "api-version" not in self.query

    def parse_body(self, kind: type[REQUEST_BODY]) -> REQUEST_BODY:
        """The body as `kind`. Raises ApiError 400 naming every field that is wrong."""
        try:
            found = kind.model_validate_json(self.body)
        except ValidationError as error:
            raise from_validation(error) from None
        _reject_duplicate_fields(self.body)
        return found

    def id_parameter(self, name: str) -> UUID | None:
        """The query parameter `name` as an id; raises ApiError 400 where it is none."""
        text = self.query.get(name)
        if not text:
            return None
        if (id := parse_id(text)) is None:
            raise bad_field(name, "must be an id (GUID).")
        return id

    def integer_parameter(self, name: str, default: int, most: int) -> int:
        """The query parameter `name` as a whole number from 0 to `most`; raises ApiError 400 where it is none."""
        text = self.query.get(name, str(default))
        if not re.fullmatch(r"[0-9]{1,18}", text) or int(text) > most:
            raise bad_field(name, f"must be a whole number from 0 to {most}.")
        return int(text)

    @cached_property
    def digests(self) -> list[str]:
        """Fingerprints of what is asked for; keyed, since the body may hold a password: by the present SECRET_KEY, and
        by those before."""
        what = f"{self.method} {self.path} ".encode() + sha256(self.body).digest()
        keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
        return [salted_hmac("mms.api.request", what, secret=key, algorithm="sha256").hexdigest() for key in keys]


@dataclass(frozen=True)
class Response:
    status: int = 200
    body: Any = None  # a pydantic model or a list of them; None: empty
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None  # instead of body


@dataclass(frozen=True)
class Route:
    """One operation of the API. `path` is what follows the hosting account, with {id} for an id."""

    method: str
    path: str
    view: Callable[..., Response]
    summary: str
    answer: Any = None  # what the body of a good answer is, for the OpenAPI document
    status: int = 200
    body: type[BaseModel] | None = None
    query: dict[str, str] = field(default_factory=dict)  # parameter: what it means
    extension: bool = False  # not in the reference
    secret: bool = False  # the answer opens something else: not for a token that only reads

    @property
    def for_readers(self) -> bool:
        return self.method == "GET" and not self.secret

    @property
    def name(self) -> str:
        return self.view.__name__


def _reject_duplicate_fields(body: bytes) -> None:
    """Raise ApiError 400 where an object has a field twice: readers differ in which of the two they take."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise bad_field(name[:200], "is there twice.")
            seen.add(name)
        return {}

    json.loads(body.decode(), object_pairs_hook=unique, parse_int=str, parse_float=str)


def parse_id(text: str) -> UUID | None:
    """A GUID, with or without hyphens."""
    if not re.fullmatch(r"[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}", text):
        return None
    return UUID(text)
