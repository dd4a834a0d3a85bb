"""The REST API as a plain ASGI application, that runs views in its own thread pools.

Checks run in this order: token, path, account, api-version, then size and content of the body, so that a body is only
read for a client with a valid token. Each response has x-ms-request-id, and each failure is an error object.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain, islice
from typing import TypeVar
from urllib.parse import parse_qsl, quote, urlsplit
from uuid import UUID, uuid4

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope
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

from mms import audit, tokens
from mms.api.docs import documents
from mms.api.errors import ApiError, bad_field
from mms.api.http import API_VERSION, EXTENSIONS, Request, Response, Route
from mms.api.router import AccountPath, find_route, parse_path
from mms.tokens import Grant

log = logging.getLogger(__name__)
RESULT = TypeVar("RESULT")

MAX_BODY_BYTES = 1024 * 1024  # requirements and kubeconfigs have a few kB
BODY_TIMEOUT_SECONDS = 30.0
MAX_QUERY_BYTES = 8192  # 200 IDs, see operations.list_operations
UNUSABLE = "This token is unknown, expired or revoked. "  # the same for all three, so that nothing is disclosed
# Maximum wait for a free thread. A longer one means that the database is stuck, and clients have their own timeouts.
QUEUE_TIMEOUT_SECONDS = 5.0

# SQLite has one writer at a time: in a single thread, writes queue here instead of polling for the database lock.
_HAS_ONE_WRITER = connection.vendor == "sqlite"
_writers = ThreadPoolExecutor(1 if _HAS_ONE_WRITER else 8, thread_name_prefix="mms-api-write")
_readers = ThreadPoolExecutor(2 if _HAS_ONE_WRITER else 8, thread_name_prefix="mms-api-read")


class ClientDisconnectedError(Exception):
    """The client disconnected before its request was complete."""


async def application(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Respond to one HTTP request below /api."""
    if scope["type"] != "http":  # required by the ASGI specification
        raise ValueError(f"The API has no {scope['type']} connections.")
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    request_id = str(uuid4())
    try:
        response = await _respond(scope, headers, receive)
    except ClientDisconnectedError:
        return
    except ApiError as error:
        response = Response(error.status, error.body(), error.headers)
    except Exception:
        log.exception("Request %s (%s %s) failed.", request_id, scope["method"], scope["path"])
        message = f"The server failed to process this request. Check its log for request ID {request_id}."
        response = Response(500, ApiError(500, "ServerError", message).body())
    await _send(scope["method"], send, response, request_id, headers.get("x-ms-client-request-id"))


async def _respond(scope: HTTPScope, headers: dict[str, str], receive: ASGIReceiveCallable) -> Response:
    method, path = scope["method"], scope["path"]
    if document := documents.find_document(method, path):
        return document
    token = _bearer_token(headers.get("authorization", ""))
    grant = tokens.cached_grant(token)
    if grant is None:
        grant = await _run_in(_readers, lambda: _authorize(token))
    target = parse_path(path)
    if not target.belongs_to(grant):
        message = "This token belongs to another hosting account. Use a token of the account in the URL."
        raise ApiError(403, "Forbidden", message)
    if tokens.is_use_due(grant):
        _writers.submit(_record_use, grant.token_id)  # in the background
    route, arguments = find_route(method, target.rest)
    request = Request(
        grant=grant,
        account_url=_base_url(scope, headers) + _account_path(target),
        method=method,
        path=path.removesuffix("/"),
        action=route.name,
        address=_client_ip(scope),
    )
    if not (grant.may_write or route.is_for_readers):
        await _run_in(_writers, lambda: request.record(_url_target(arguments), audit.REFUSED))
        action = route.summary[:1].lower() + route.summary[1:]
        raise ApiError(403, "ReadOnlyToken", f"This token is read-only and can't {action}. Use one with write scope.")
    request = replace(
        request,
        query=_parse_query(scope["query_string"]),
        body=await _read_body(headers, receive) if method in {"POST", "PUT"} else b"",
        client_request_id=_client_request_id(headers),
        if_none_match=headers.get("if-none-match", ""),
    )
    pool = _writers if route.is_audited else _readers
    return await _run_in(pool, lambda: _call_view(route, request, arguments))


async def _run_in(pool: ThreadPoolExecutor, call: Callable[[], RESULT]) -> RESULT:
    """Return the result of `call`, run in a thread of `pool` with a database connection.

    Raises ApiError 503 if the database isn't available, or no thread was free within QUEUE_TIMEOUT_SECONDS.
    """
    queued_at = time.monotonic()

    def run() -> RESULT:
        if time.monotonic() - queued_at > QUEUE_TIMEOUT_SECONDS:
            raise _database_unavailable()
        close_old_connections()
        try:
            return call()
        except (OperationalError, InterfaceError) as error:
            log.warning("The database is not available: %s", error)
            raise _database_unavailable() from None

    return await asyncio.get_running_loop().run_in_executor(pool, run)


def _database_unavailable() -> ApiError:
    message = "The database is busy, full or unreachable. Retry in a few seconds."
    return ApiError(503, "DatabaseUnavailable", message, headers={"retry-after": "2"})


def _bearer_token(header: str) -> str:
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise _unauthorized()
    token = token.strip()
    if token.startswith(tokens.DASHBOARD_PREFIX):
        raise _unauthorized("This token is for the dashboard's API, not for the MMS. ")
    if not tokens.PATTERN.fullmatch(token):  # saves a query
        raise _unauthorized(UNUSABLE)
    return token


def _authorize(token: str) -> Grant:
    grant = tokens.find_grant(token)
    if grant is None:
        raise _unauthorized(UNUSABLE)
    return grant


def _record_use(token_id: int) -> None:
    try:
        close_old_connections()
        tokens.record_use(token_id)
    except DatabaseError as error:
        log.info("The last use of token %d was not stored: %s", token_id, error)


def _unauthorized(reason: str = "") -> ApiError:
    message = f"{reason}Send a valid token of this hosting account (mms_...): Authorization: Bearer <token>."
    return ApiError(401, "Unauthorized", message, headers={"www-authenticate": "Bearer"})


def _call_view(route: Route, request: Request, arguments: dict[str, UUID]) -> Response:
    try:
        return _encode_body(route.view(request, **arguments))
    except IntegrityError:  # two concurrent requests, and a constraint of the database allowed one
        message = "Another request changed the same resource at the same time. Read it again before you retry."
        raise ApiError(409, "Conflict", message) from None
    except (ApiError, DatabaseError):  # nothing was changed, or another entry can't be stored either
        raise
    except Exception:
        if route.is_audited:
            request.record(_url_target(arguments), audit.FAILED)
        raise


def _url_target(arguments: dict[str, UUID]) -> str:
    return " ".join(map(str, arguments.values()))


def _client_ip(scope: HTTPScope) -> str:
    """Return the client's IP address, which Uvicorn takes from the headers of a trusted proxy; "" if unknown."""
    host = (scope.get("client") or ("", 0))[0]
    return host.removeprefix("::ffff:")


def _encode_body(response: Response) -> Response:
    """Return the response with its body as bytes, encoded in this thread and not on the event loop.

    Of a long list, only the beginning is encoded.
    """
    if response.parts is not None:
        beginning = list(islice(response.parts, 3))  # the first batch, the second, and the end
        if len(beginning) < 3:
            return Response(response.status, None, response.headers, b"".join(beginning))
        return replace(response, parts=chain(beginning, response.parts))
    if response.body is None:
        return response
    return Response(response.status, None, response.headers, to_json(response.body, by_alias=True))


def _parse_query(raw: bytes) -> dict[str, str]:
    if len(raw) > MAX_QUERY_BYTES:
        raise ApiError(414, "QueryTooLong", f"The query may have at most {MAX_QUERY_BYTES} bytes.")
    query: dict[str, str] = {}
    for name, value in parse_qsl(raw.decode("latin-1"), keep_blank_values=True):
        if name in query:
            raise bad_field(name[:200], "must not occur twice.")
        if "\0" in value:
            raise bad_field(name, "must not contain a NUL character.")
        query[name] = value
    if query.get("api-version", API_VERSION) != API_VERSION:
        raise bad_field("api-version", f"must be {API_VERSION}, this server's only version.", "UnsupportedApiVersion")
    return query


async def _read_body(headers: dict[str, str], receive: ASGIReceiveCallable) -> bytes:
    declared = headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > MAX_BODY_BYTES:
        raise _body_too_large()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            return await _receive_body(receive)
    except TimeoutError:
        message = f"The body didn't arrive within {BODY_TIMEOUT_SECONDS:.0f} s. Check the connection, then retry."
        raise ApiError(408, "RequestTimeout", message) from None


async def _receive_body(receive: ASGIReceiveCallable) -> bytes:
    parts = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnectedError
        parts += message.get("body", b"")
        if len(parts) > MAX_BODY_BYTES:
            raise _body_too_large()
        if not message.get("more_body"):
            return bytes(parts)


def _body_too_large() -> ApiError:
    message = f"The body may have at most {MAX_BODY_BYTES} bytes."
    return ApiError(413, "BodyTooLarge", message, headers={"connection": "close"})


def _client_request_id(headers: dict[str, str]) -> str | None:
    text = headers.get("x-ms-client-request-id")
    if not text:
        return None
    if not re.fullmatch(r"[\x21-\x7e]{1,100}", text):
        raise bad_field("x-ms-client-request-id", "must be at most 100 visible ASCII characters.")
    return text


def _base_url(scope: HTTPScope, headers: dict[str, str]) -> str:
    """Return the scheme and host that the client used, so that URLs in responses work for it.

    Through the site's proxy, also the path that leads here.
    For a host that isn't in ALLOWED_HOSTS, return the configured address instead, so that no host name is echoed.
    """
    host = headers.get("host", "")
    is_allowed = validate_host(split_domain_port(host)[0], settings.ALLOWED_HOSTS)
    if not is_allowed:
        return str(settings.MMS_URL)
    path = settings.SITE_PATH if host == urlsplit(settings.SITE_URL).netloc else ""
    return f"{scope['scheme']}://{host}{path}"


def _account_path(target: AccountPath) -> str:
    names = (quote(name, safe="") for name in (target.subscription, target.resource_group, target.account))
    return "/api/subscriptions/{}/resourceGroups/{}/hostingAccounts/{}".format(*names)


async def _send(
    method: str, send: ASGISendCallable, response: Response, request_id: str, client_request_id: str | None
) -> None:
    body = response.raw
    if body is None:
        body = b"" if response.body is None else to_json(response.body, by_alias=True)
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "x-ms-request-id": request_id,
        "x-mms-extensions": ", ".join(EXTENSIONS),
        "x-content-type-options": "nosniff",
    } | {name.lower(): value for name, value in response.headers.items()}
    if client_request_id and client_request_id.isascii():
        headers["x-ms-client-request-id"] = client_request_id[:100]
    if response.status in {204, 304}:
        del headers["content-type"], headers["content-length"]
    if response.parts is not None:
        del headers["content-length"]
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": response.status, "headers": pairs, "trailers": False})
    if response.parts is not None and method != "HEAD":
        await _send_parts(send, response.parts)
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _send_parts(send: ASGISendCallable, parts: Iterator[bytes]) -> None:
    """Send each part once the client has received the previous one. An exception aborts the response."""
    while (part := await _run_in(_readers, lambda: next(parts, None))) is not None:
        await send({"type": "http.response.body", "body": part, "more_body": True})
