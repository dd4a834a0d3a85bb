"""Uploads in, files out: plain ASGI in front of Django, so that nothing is read before it is known who sends it.

`POST /uploads/?account=<name>[&next=<path>]` takes a form with one file part named `file`. A script gets JSON
(201 with `file`, the token that stands for the file in forms; or an error); a program sends its bearer token along. A
plain form has `next` and is led there, with `?file=<token>` or `?upload_error=<code>`.
`GET /files/<sha256>/<name>?key=<hmac>` is what the MMS fetches.
"""

import asyncio
import errno
import json
import logging
import os
import re
import shutil
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qs, quote, urlencode

from django.conf import settings
from django.db import Error
from django.utils.http import url_has_allowed_host_and_scheme

from dashboard.access import guards as access
from dashboard.access.permissions import Permission, needed
from dashboard.auth import request_user, tokens
from dashboard.auth.request_user import Scope, header
from dashboard.auth.tokens import NoToken
from dashboard.files import store as files
from dashboard.files.multipart import FORM_BYTES, Body, Form, Gone, Receive, Refused
from dashboard.files.store import Incoming, StoredFile, file_url, masked, stored
from dashboard.http import db_errors
from deployments.models import HostingAccount

__all__ = ["StoredFile", "application", "file_url", "masked", "stored"]

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

BLOCK = 1024 * 1024  # bytes written or read at a time
SPARE_BYTES = 64 * 1024**2  # of the disk that uploads leave free
SAFE = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"sandbox; default-src 'none'; frame-ancestors 'none'"),
]
log = logging.getLogger(__name__)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI application for /uploads/ and /files/."""
    if scope["type"] != "http":
        return
    if scope["path"].startswith("/files/"):
        return await _serve(scope, send)
    query = {name: values[-1] for name, values in parse_qs(scope["query_string"].decode("latin-1")).items()}
    body = Body(receive)
    try:
        await _check(scope, query.get("account", ""))
        file = await _take(scope, body)
    except Gone:
        return
    except Refused as refusal:
        return await _refuse(send, body, refusal, _next(scope, query))
    if back := _next(scope, query):
        return await _redirect(send, back, {"file": file.token})
    found = {"file": file.token, "name": file.name, "size": file.size, "sha256": file.sha256}
    await _answer(send, 201, json.dumps(found).encode(), [(b"content-type", b"application/json"), *SAFE])


# --- in


async def _check(scope: Scope, account: str) -> None:
    """Raise Refused unless a page of this site, or a program with a token, sends a file for somebody who may.

    A token is no cookie: no other site can have a browser send it, so it is not asked where the request comes from.
    """
    if scope["path"] != "/uploads/" or scope["method"] != "POST":
        raise Refused(405, "refused", "Upload files with POST, from the forms of this site.")
    by_token = bool(header(scope, b"authorization"))
    if not request_user.is_known_host(scope) or not (by_token or request_user.is_same_origin(scope)):
        raise Refused(403, "refused", "Only pages of this site can upload files. Open the form again and retry.")
    try:
        have = await request_user.ask_database(_rank_of_token if by_token else _rank, scope, account)
    except NoToken as missing:
        raise Refused(401, "refused", str(missing)) from None
    except Error as error:
        raise _not_now(error) from error
    if have is None:
        raise Refused(401, "refused", "You’re signed out. Sign in, then upload the file again.")
    if have < needed(Permission.ADD_ASSET):
        raise Refused(403, "refused", f"You don’t have permission to add files to the account “{account}”.")
    length = header(scope, b"content-length")
    if length.isdigit() and int(length) > settings.UPLOAD_MAX_BYTES + FORM_BYTES:
        raise _too_large()
    if shutil.disk_usage(settings.TMP_DIR).free < SPARE_BYTES + (int(length) if length.isdigit() else 0):
        raise _no_space()


def _rank(scope: Scope, account: str) -> int | None:
    """What the sender may do in the account; None when signed out. Asks the database."""
    user = request_user.find_user(scope)
    if not user.is_authenticated:
        return None
    found = HostingAccount.objects.defer(*HostingAccount.SECRETS).filter(name=account).first()
    return access.rank(user, found.pk) if found else 0


def _rank_of_token(scope: Scope, account: str) -> int:
    """What the token of the request opens in the account; one that only reads opens no door here. Raises NoToken."""
    token = request_user.find_token(scope)
    found = HostingAccount.objects.defer(*HostingAccount.SECRETS).filter(name=account).first()
    return tokens.rank(token, found.pk) if found and tokens.may_write(token) else 0


async def _take(scope: Scope, body: Body) -> StoredFile:
    """Stream the file of the form to its place. Raises Refused or Gone; nothing is left behind then."""
    form, incoming = Form(header(scope, b"content-type")), None
    try:
        incoming = await asyncio.to_thread(Incoming)
        async for part in body.parts():
            form.feed(part)
            if form.size > settings.UPLOAD_MAX_BYTES:
                raise _too_large()
            if form.held >= BLOCK:
                await asyncio.to_thread(incoming.write, form.take())
        await asyncio.to_thread(incoming.write, form.take())
        if not form.complete:
            raise Refused(400, "failed", "The file didn’t arrive completely. Upload it again.")
        if not form.name:
            raise Refused(400, "no_file", "No file was chosen.")
        if not incoming.size:
            raise Refused(400, "empty", "The file is empty.")
        return await asyncio.to_thread(incoming.keep, form.name)
    except OSError as reason:
        if reason.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_space() from None
        log.exception("couldn't store an upload")
        raise Refused(
            500, "failed", "The file couldn’t be stored. Contact an administrator; the log has the reason."
        ) from None
    finally:
        if incoming:
            await asyncio.to_thread(incoming.discard)


def _not_now(error: Error) -> Refused:
    log.warning("couldn't start an upload: %s", error)
    return Refused(503, "failed", f"{db_errors.reason(error)} Nothing was stored. Try again in a moment.".strip())


def _too_large() -> Refused:
    limit = settings.UPLOAD_MAX_BYTES
    text = f"{limit / 1024**3:.1f} GB" if limit >= 1024**3 else f"{limit / 1024**2:.1f} MB"
    return Refused(413, "too_large", f"The file is larger than {text}, the maximum for this site.")


def _no_space() -> Refused:
    return Refused(507, "no_space", "The site has no space left for this file. Contact an administrator.")


def _next(scope: Scope, query: dict[str, str]) -> str:
    """Where a plain form is led back to: a path of this site; "" for scripts, which want JSON."""
    back = query.get("next", "")
    if "text/html" not in header(scope, b"accept") or not back.startswith("/"):
        return ""
    return back if url_has_allowed_host_and_scheme(back, allowed_hosts=None) else ""


async def _refuse(send: Send, body: Body, refusal: Refused, back: str) -> None:
    if back:
        await _redirect(send, back, {"upload_error": refusal.code}, more=True)
    else:
        text = json.dumps({"error": {"code": refusal.code, "message": str(refusal)}}, ensure_ascii=False)
        headers = [(b"content-type", b"application/json"), (b"connection", b"close"), *SAFE]
        await _answer(send, refusal.status, text.encode(), headers, more=True)
    await body.throw_away()
    await send({"type": "http.response.body", "body": b""})


async def _redirect(send: Send, back: str, parameters: dict[str, str], more: bool = False) -> None:
    place = f"{back}{'&' if '?' in back else '?'}{urlencode(parameters)}"
    await _answer(send, 303, b"", [(b"location", quote(place, safe="/?&=%:~-._").encode())], more)


async def _answer(
    send: Send, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]], more: bool = False
) -> None:
    headers = [*headers, (b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": more})


# --- out


async def _serve(scope: Scope, send: Send) -> None:
    """Send a kept file, or the part of it that was asked for."""
    plain = [(b"content-type", b"text/plain; charset=utf-8"), *SAFE]
    if scope["method"] not in ("GET", "HEAD"):
        return await _answer(send, 405, b"Only GET and HEAD are answered here.\n", [(b"allow", b"GET, HEAD"), *plain])
    path = await _path_asked_for(scope)
    try:
        file = await asyncio.to_thread(path.open, "rb") if path else None
    except FileNotFoundError:
        file = None
    if file is None:
        return await _answer(send, 404, b"There is no such file, or the key does not open it.\n", plain)
    with file:
        size = os.fstat(file.fileno()).st_size
        span = _range(header(scope, b"range"), size)
        if span is None:
            return await _answer(send, 416, b"", [(b"content-range", f"bytes */{size}".encode()), *plain])
        await _send_part(scope, send, file, size, *span)


async def _send_part(scope: Scope, send: Send, file: BinaryIO, size: int, start: int, end: int) -> None:
    headers = [
        (b"content-type", b"application/octet-stream"),
        (b"content-disposition", b"attachment"),
        (b"content-length", str(end - start).encode()),
        (b"accept-ranges", b"bytes"),
        (b"cache-control", b"private, no-store"),
        *SAFE,
    ]
    part = end - start != size
    if part:
        headers.append((b"content-range", f"bytes {start}-{end - 1}/{size}".encode()))
    await send({"type": "http.response.start", "status": 206 if part else 200, "headers": headers})
    if scope["method"] == "GET":
        file.seek(start)
        while start < end and (block := await asyncio.to_thread(file.read, min(BLOCK // 4, end - start))):
            start += len(block)
            await send({"type": "http.response.body", "body": block, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _path_asked_for(scope: Scope) -> Path | None:
    """The kept file that the request may have; None when the key does not fit."""
    _, _, digest, name = [*scope["path"].split("/", 3), "", ""][:4]
    key = parse_qs(scope["query_string"].decode("latin-1")).get("key", [""])[-1]
    if not files.DIGEST.fullmatch(digest):
        return None
    if files.is_key(digest, name, key) or await request_user.ask_database(files.is_former_key, digest, name, key):
        return files.path_of(digest)
    return None


def _range(text: str, size: int) -> tuple[int, int] | None:
    """Start and end (exclusive) of the one range in a Range header; None when it lies outside the file.

    No range, several, or one in another unit mean the whole file.
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
