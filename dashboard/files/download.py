"""Downloads of uploaded files: plain ASGI in front of Django.

The MMS fetches `GET /files/<sha256>/<name>?key=<hmac>`. The key authorizes the request; there is no session.
"""

import asyncio
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope

from dashboard.auth import request_user
from dashboard.files import store
from dashboard.http import asgi
from dashboard.http.asgi import header

BLOCK_BYTES = 256 * 1024  # bytes read at a time
SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"sandbox; default-src 'none'; frame-ancestors 'none'"),
]
TEXT_HEADERS = [(b"content-type", b"text/plain; charset=utf-8"), *SECURITY_HEADERS]


async def application(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Send a stored file, or the requested range of it."""
    if scope["type"] != "http":
        return
    if scope["method"] not in ("GET", "HEAD"):
        headers = [(b"allow", b"GET, HEAD"), *TEXT_HEADERS]
        await _respond(send, 405, b"Only GET and HEAD are allowed.\n", headers)
        return
    path = await _authorized_path(scope)
    try:
        file = await asyncio.to_thread(path.open, "rb") if path else None
    except FileNotFoundError:
        file = None
    if file is None:
        await _respond(send, 404, b"The file doesn't exist, or the key is wrong.\n", TEXT_HEADERS)
        return
    with file:
        size = os.fstat(file.fileno()).st_size
        span = _requested_range(header(scope, b"range"), size)
        if span is None:
            await _respond(send, 416, b"", [(b"content-range", f"bytes */{size}".encode()), *TEXT_HEADERS])
            return
        await _send_range(scope, send, file, size, *span)


async def _respond(send: ASGISendCallable, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
    headers = [*headers, (b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]
    await asgi.send_response(send, status, headers, body)


async def _send_range(
    scope: HTTPScope, send: ASGISendCallable, file: BinaryIO, size: int, start: int, end: int
) -> None:
    headers = [
        (b"content-type", b"application/octet-stream"),
        (b"content-disposition", b"attachment"),
        (b"content-length", str(end - start).encode()),
        (b"accept-ranges", b"bytes"),
        (b"cache-control", b"private, no-store"),
        *SECURITY_HEADERS,
    ]
    is_partial = end - start != size
    if is_partial:
        headers.append((b"content-range", f"bytes {start}-{end - 1}/{size}".encode()))
    await asgi.start_response(send, 206 if is_partial else 200, headers)
    if scope["method"] == "GET":
        file.seek(start)
        while start < end and (block := await asyncio.to_thread(file.read, min(BLOCK_BYTES, end - start))):
            start += len(block)
            await asgi.send_chunk(send, block)
    await asgi.end_response(send)


async def _authorized_path(scope: HTTPScope) -> Path | None:
    """Return the path of the requested file, or None if the key is wrong."""
    _, _, digest, name = [*scope["path"].split("/", 3), "", ""][:4]
    key = asgi.query_parameters(scope).get("key", "")
    if not store.DIGEST.fullmatch(digest):
        return None
    if store.is_valid_key(digest, name, key):
        return store.path_of(digest)
    if await request_user.call_with_database(store.is_valid_former_key, digest, name, key):
        return store.path_of(digest)
    return None


def _requested_range(text: str, size: int) -> tuple[int, int] | None:
    """Return start and end (exclusive) of the range in a Range header, or None if it is outside the file.

    No range, several ranges, and ranges in other units select the whole file.
    """
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", text.strip())
    if not match or match.group(0) == "bytes=-":
        return 0, size
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1 if last else size)
    return (start, end) if start < end else None
