"""Uploads: plain ASGI in front of Django, so that the sender is checked before the body is read.

`POST /uploads/?account=<name>[&next=<path>]` accepts a form with one file part named `file`, from a page of this site
or from a program with a bearer token. Scripts get JSON: 201 with `file`, the token that represents the file in forms,
or an error. A plain form with `next` is redirected there with `?file=<token>` or `?upload_error=<code>`.
"""

import asyncio
import errno
import json
import logging
import shutil
from collections.abc import Iterable
from urllib.parse import quote, urlencode

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope
from django.conf import settings
from django.db import Error
from django.utils.http import url_has_allowed_host_and_scheme

from dashboard.access import guards
from dashboard.access.permissions import Permission, required_level
from dashboard.auth import request_user, tokens
from dashboard.files.multipart import MAX_FORM_BYTES, InvalidFormError, UploadForm
from dashboard.files.store import IncomingFile, StoredFile
from dashboard.http import asgi, db_errors, hosts
from dashboard.http.asgi import header
from dashboard.http.body import ClientDisconnectedError, RequestBody, SlowBodyError
from deployments.models import HostingAccount

BLOCK_BYTES = 1024 * 1024  # bytes written at a time
SPARE_BYTES = 64 * 1024**2  # disk space that uploads leave free
SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"sandbox; default-src 'none'; frame-ancestors 'none'"),
]
log = logging.getLogger(__name__)


class UploadError(Exception):
    """The upload is rejected. `code` identifies the reason to the form's page; the message is shown to the user."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


async def application(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Serve /uploads/."""
    if scope["type"] != "http":
        return
    query = asgi.query_parameters(scope)
    body = RequestBody(receive)
    next_path = _next_path(scope, query)
    try:
        await _check(scope, query.get("account", ""))
        file = await _receive_file(scope, body)
    except ClientDisconnectedError:
        return
    except UploadError as error:
        await _send_error(send, error, next_path)
        await body.drain()
        await asgi.end_response(send)
        return
    if next_path:
        await _redirect(send, next_path, {"file": file.token})
    else:
        content = {"file": file.token, "name": file.name, "size": file.size, "sha256": file.sha256}
        headers = [(b"content-type", b"application/json"), *SECURITY_HEADERS]
        await _respond(send, 201, json.dumps(content).encode(), headers)
    await asgi.end_response(send)


async def _check(scope: HTTPScope, account: str) -> None:
    """Raise UploadError unless the sender may add files to the account, the request is safe and there is disk space.

    The origin isn't checked for a token: unlike a cookie, another site can't make the browser send it.
    """
    if scope["path"] != "/uploads/" or scope["method"] != "POST":
        raise UploadError(405, "refused", "Upload files with POST, from the forms of this site.")
    has_token = bool(header(scope, b"authorization"))
    if not hosts.is_known_host(scope) or not (has_token or hosts.is_same_origin(scope)):
        raise UploadError(403, "refused", "Only pages of this site can upload files. Open the form again and retry.")
    try:
        level = await request_user.call_with_database(_token_level if has_token else _user_level, scope, account)
    except tokens.InvalidTokenError as error:
        raise UploadError(401, "refused", str(error)) from None
    except Error as error:
        raise _database_failed(error) from error
    if level is None:
        raise UploadError(401, "refused", "You’re signed out. Sign in, then upload the file again.")
    if level < required_level(Permission.ADD_ASSET):
        raise UploadError(403, "refused", f"You don’t have permission to add files to the account “{account}”.")
    text = header(scope, b"content-length")
    length = int(text) if text.isdigit() else 0
    if length > settings.UPLOAD_MAX_BYTES + MAX_FORM_BYTES:
        raise _too_large()
    if shutil.disk_usage(settings.TMP_DIR).free < SPARE_BYTES + length:
        raise _no_space()


def _user_level(scope: HTTPScope, account: str) -> int | None:
    """Return the sender's access level in the account, or None if they are signed out. Queries the database."""
    user = request_user.find_user(scope)
    if not user.is_authenticated:
        return None
    row = HostingAccount.objects.defer(*HostingAccount.SECRETS).filter(name=account).first()
    return guards.access_level(user, row.pk) if row else 0


def _token_level(scope: HTTPScope, account: str) -> int:
    """Return the access level of the token in the account; 0 for read-only tokens. Raises tokens.InvalidTokenError."""
    token = request_user.find_token(scope)
    row = HostingAccount.objects.defer(*HostingAccount.SECRETS).filter(name=account).first()
    return tokens.access_level(token, row.pk) if row and tokens.can_write(token) else 0


async def _receive_file(scope: HTTPScope, body: RequestBody) -> StoredFile:
    """Store the file of the form. On UploadError and ClientDisconnectedError, nothing is stored."""
    incoming = None
    try:
        form = UploadForm(header(scope, b"content-type"))
        incoming = await asyncio.to_thread(IncomingFile)
        async for chunk in body.chunks():
            form.feed(chunk)
            if form.size > settings.UPLOAD_MAX_BYTES:
                raise _too_large()
            if form.buffered >= BLOCK_BYTES:
                await asyncio.to_thread(incoming.write, form.take())
        await asyncio.to_thread(incoming.write, form.take())
        if not form.is_complete:
            raise UploadError(400, "failed", "The file didn’t arrive completely. Upload it again.")
        if not form.name:
            raise UploadError(400, "no_file", "No file selected.")
        if not incoming.size:
            raise UploadError(400, "empty", "The file is empty.")
        return await asyncio.to_thread(incoming.store, form.name)
    except InvalidFormError as error:
        raise UploadError(400, "no_file", str(error)) from None
    except SlowBodyError:
        raise UploadError(408, "failed", "The upload was too slow, so nothing was stored. Send it again.") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_space() from None
        log.exception("Couldn't store an upload")
        message = "The file couldn’t be stored. Contact an administrator; the log has the reason."
        raise UploadError(500, "failed", message) from None
    finally:
        if incoming:
            await asyncio.to_thread(incoming.discard)


def _database_failed(error: Error) -> UploadError:
    log.warning("Couldn't check the sender of an upload: %s", error)
    message = f"{db_errors.user_message(error)} Nothing was stored. Try again in a moment."
    return UploadError(503, "failed", message.strip())


def _too_large() -> UploadError:
    limit = settings.UPLOAD_MAX_BYTES
    text = f"{limit / 1024**3:.1f} GB" if limit >= 1024**3 else f"{limit / 1024**2:.1f} MB"
    return UploadError(413, "too_large", f"The file is larger than {text}, the maximum for this site.")


def _no_space() -> UploadError:
    return UploadError(507, "no_space", "The site has no space left for this file. Contact an administrator.")


def _next_path(scope: HTTPScope, query: dict[str, str]) -> str:
    """Return the path of this site to redirect a plain form to, or "" for scripts, which expect JSON."""
    path = query.get("next", "")
    if "text/html" not in header(scope, b"accept") or not path.startswith("/"):
        return ""
    return path if url_has_allowed_host_and_scheme(path, allowed_hosts=None) else ""


async def _send_error(send: ASGISendCallable, error: UploadError, next_path: str) -> None:
    if next_path:
        return await _redirect(send, next_path, {"upload_error": error.code})
    text = json.dumps({"error": {"code": error.code, "message": str(error)}}, ensure_ascii=False)
    headers = [(b"content-type", b"application/json"), (b"connection", b"close"), *SECURITY_HEADERS]
    return await _respond(send, error.status, text.encode(), headers)


async def _redirect(send: ASGISendCallable, path: str, parameters: dict[str, str]) -> None:
    url = f"{path}{'&' if '?' in path else '?'}{urlencode(parameters)}"
    await _respond(send, 303, b"", [(b"location", quote(url, safe="/?&=%:~-._").encode())])


async def _respond(send: ASGISendCallable, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Send the headers and the body. The caller ends the response."""
    headers = [*headers, (b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]
    await asgi.start_response(send, status, headers)
    await asgi.send_chunk(send, body)
