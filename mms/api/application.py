"""The REST API as a plain ASGI application: no middleware, no session, views in threads of its own.

Order of checks: token, path, account, api-version, then size and content of the body: nobody without a token has a
byte of a body read. Every answer carries x-ms-request-id, and whatever goes wrong is an error object, never a trace.
"""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qsl, quote
from uuid import UUID, uuid4

from django.conf import settings
from django.db import (
    DatabaseError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    close_old_connections,
    connection,
)
from django.http.request import split_domain_port, validate_host
from pydantic_core import to_json

from mms import tokens
from mms.api.docs import documents
from mms.api.errors import ApiError, bad_field
from mms.api.http import API_VERSION, Request, Response, Route
from mms.api.router import AccountPath, find_route, parse_path
from mms.tokens import Grant

log = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_BODY_BYTES = 1024 * 1024  # bytes; requirements and kubeconfigs are texts of some kB
BODY_TIMEOUT_SECONDS = 30.0  # seconds to send it in
MAX_QUERY_BYTES = 2048  # bytes
UNUSABLE = "This token is unknown, expired or revoked. "  # one answer for all three
QUEUE_TIMEOUT_SECONDS = 5.0  # seconds that a request waits for its turn; target it takes longer the database is stuck

# SQLite has one writer at a time: in one thread, writes wait for each other here and not in the database, with sleeps.
_ONE_WRITER = connection.vendor == "sqlite"
_writers = ThreadPoolExecutor(1 if _ONE_WRITER else 8, thread_name_prefix="mms-api-write")
_readers = ThreadPoolExecutor(2 if _ONE_WRITER else 8, thread_name_prefix="mms-api-read")


class ClientDisconnectedError(Exception):
    """The client went away before its request was complete."""


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one HTTP request below /api."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    request_id = str(uuid4())
    try:
        response = await _answer(scope, headers, receive)
    except ClientDisconnectedError:
        return
    except ApiError as error:
        response = Response(error.status, error.body(), error.headers)
    except Exception:
        log.exception("Request %s (%s %s) failed.", request_id, scope["method"], scope["path"])
        failure = ApiError(500, "ServerError", f"The server failed. Its log says more at {request_id}.")
        response = Response(500, failure.body())
    await _send(send, response, request_id, headers.get("x-ms-client-request-id"))


async def _answer(scope: Scope, headers: dict[str, str], receive: Receive) -> Response:
    method, path = scope["method"], scope["path"]
    if document := documents.find_document(method, path):
        return document
    token = _token(headers.get("authorization", ""))
    grant = tokens.cached_grant(token) or await _in_thread(_readers, _authorize, token)
    target = parse_path(path)
    if not target.belongs_to(grant):
        raise ApiError(403, "Forbidden", "This token is not for this hosting account.")
    if tokens.is_use_due(grant):  # nobody waits for this
        _writers.submit(_note_use, grant.token_id)
    route, arguments = find_route(method, target.rest)
    if not (grant.may_write or route.for_readers):
        raise ApiError(403, "ReadOnlyToken", f"This token may only read: it is not for {route.summary!r}.")
    query = _query(scope["query_string"])
    body = await _body(headers, receive) if method in {"POST", "PUT"} else b""
    request = Request(
        grant=grant,
        account_url=_base(scope, headers) + _account_path(target),
        method=method,
        path=path.removesuffix("/"),
        query=query,
        body=body,
        client_request_id=_client_request_id(headers),
    )
    pool = _readers if route.method == "GET" else _writers
    return await _in_thread(pool, _call, route, request, arguments)


async def _in_thread(pool: ThreadPoolExecutor, call: Callable[..., Any], *arguments: Any) -> Any:
    """What `call` returns in a thread with a database connection.

    Raises 503 target the database cannot do its part: in time, for a client that gives up waiting knows nothing.
    """
    asked = time.monotonic()

    def in_turn() -> Any:
        if time.monotonic() - asked > QUEUE_TIMEOUT_SECONDS:
            raise _unavailable()
        close_old_connections()
        try:
            return call(*arguments)
        except (OperationalError, InterfaceError) as error:
            log.warning("The database is not available: %s", error)
            raise _unavailable() from None

    return await asyncio.get_running_loop().run_in_executor(pool, in_turn)


def _unavailable() -> ApiError:
    message = "The database is busy, full or out of reach. Try again in a moment."
    return ApiError(503, "DatabaseUnavailable", message, headers={"retry-after": "2"})


def _token(header: str) -> str:
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise _unauthorized()
    token = token.strip()
    if token.startswith(tokens.DASHBOARD_PREFIX):
        raise _unauthorized("This is a token of a person, for the API of the dashboard. ")
    if not tokens.PATTERN.fullmatch(token):  # no need to ask the database
        raise _unauthorized(UNUSABLE)
    return token


def _authorize(token: str) -> Grant:
    grant = tokens.find_grant(token)
    if grant is None:
        raise _unauthorized(UNUSABLE)
    return grant


def _note_use(token_id: int) -> None:
    try:
        close_old_connections()
        tokens.record_use(token_id)
    except DatabaseError as error:
        log.info("The last use of token %d was not noted: %s", token_id, error)


def _unauthorized(reason: str = "") -> ApiError:
    message = f"{reason}Send a valid token of this hosting account (mms_…): Authorization: Bearer <token>."
    return ApiError(401, "Unauthorized", message, headers={"www-authenticate": "Bearer"})


def _call(route: Route, request: Request, arguments: dict[str, UUID]) -> Response:
    try:
        return _encoded(route.view(request, **arguments))
    except IntegrityError:  # two requests at once; the constraint let one of them pass
        message = "Another request changed the same thing at the same moment. Look again before you repeat this one."
        raise ApiError(409, "Conflict", message) from None


def _encoded(response: Response) -> Response:
    """With the body as bytes: a long list is encoded in the thread, not on the event loop."""
    if response.body is None:
        return response
    return Response(response.status, None, response.headers, to_json(response.body, by_alias=True))


def _query(raw: bytes) -> dict[str, str]:
    if len(raw) > MAX_QUERY_BYTES:
        raise ApiError(414, "QueryTooLong", f"The query may have at most {MAX_QUERY_BYTES} bytes.")
    query: dict[str, str] = {}
    for name, value in parse_qsl(raw.decode("latin-1"), keep_blank_values=True):
        if name in query:
            raise bad_field(name[:200], "is there twice.")
        if "\0" in value:
            raise bad_field(name, "must not contain a NUL character.")
        query[name] = value
    if query.get("api-version", API_VERSION) != API_VERSION:
        raise bad_field("api-version", f"this server speaks {API_VERSION}.", "UnsupportedApiVersion")
    return query


async def _body(headers: dict[str, str], receive: Receive) -> bytes:
    declared = headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > MAX_BODY_BYTES:
        raise _too_large()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            return await _received(receive)
    except TimeoutError:
        raise ApiError(408, "RequestTimeout", f"The body did not arrive within {BODY_TIMEOUT_SECONDS:.0f} s.") from None


async def _received(receive: Receive) -> bytes:
    parts = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnectedError
        parts += message.get("body", b"")
        if len(parts) > MAX_BODY_BYTES:
            raise _too_large()
        if not message.get("more_body"):
            return bytes(parts)


def _too_large() -> ApiError:
    return ApiError(
        413, "BodyTooLarge", f"The body may have at most {MAX_BODY_BYTES} bytes.", headers={"connection": "close"}
    )


def _client_request_id(headers: dict[str, str]) -> str | None:
    text = headers.get("x-ms-client-request-id")
    if not text:
        return None
    if not re.fullmatch(r"[\x21-\x7e]{1,100}", text):
        raise bad_field("x-ms-client-request-id", "must be at most 100 visible ASCII characters.")
    return text


def _base(scope: Scope, headers: dict[str, str]) -> str:
    """Scheme and host as the client wrote them, so that the URLs in answers work for this client; target it is a host
    that nobody has allowed, the address that people are told. A name must not come back just because it was sent."""
    host = headers.get("host", "")
    known = validate_host(split_domain_port(host)[0], settings.ALLOWED_HOSTS)
    return f"{scope['scheme']}://{host}" if known else settings.GATEWAY_URL


def _account_path(target: AccountPath) -> str:
    names = (quote(part, safe="") for part in target[:3])
    return "/api/subscriptions/{}/resourceGroups/{}/hostingAccounts/{}".format(*names)


async def _send(send: Send, response: Response, request_id: str, client_request_id: str | None) -> None:
    body = response.raw
    if body is None:
        body = b"" if response.body is None else to_json(response.body, by_alias=True)
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "x-ms-request-id": request_id,
        "x-mms-extensions": "idempotency",
        "x-content-type-options": "nosniff",
    } | {name.lower(): value for name, value in response.headers.items()}
    if client_request_id and client_request_id.isascii():
        headers["x-ms-client-request-id"] = client_request_id[:100]
    if response.status == 204:
        del headers["content-type"], headers["content-length"]
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": response.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
