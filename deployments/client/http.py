"""HTTP exchange with limits of time and size, without redirects. Any status is a response, not an error."""

import base64
import http.client
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.auth import AuthBase

from deployments.client import errors, wire_values
from deployments.client.deadlines import CALL, Call, TimedAdapter
from netguard.connect import ForbiddenAddressError
from netguard.redaction import Redactor

CONNECT_TIMEOUT_SECONDS = 5.0  # for each address of the host
READ_TIMEOUT_SECONDS = 20.0  # between two bytes of a response
DEADLINE_SECONDS = 60.0  # for a whole call; less than timing.LEASE_SECONDS
MAX_RESPONSE_BYTES = 4 * 1024**2


@dataclass(frozen=True)
class ServerResponse:
    """Response of any status, with its complete body."""

    status: int
    headers: Any  # case-insensitive mapping
    body: bytes
    redactor: Redactor = field(default_factory=Redactor)  # of the secrets that the server must not echo

    def json(self) -> Any:
        """Parse the body as JSON, without the secrets. Raises MalformedPayloadError."""
        try:
            return self.redactor.json(self.body, id_names=wire_values.ID_FIELDS, is_kept=wire_values.is_kept)
        except (ValueError, RecursionError):
            raise wire_values.MalformedPayloadError("The body isn't JSON.") from None


class Authorization(AuthBase):
    """Authorization header. Passed as `auth`, because requests otherwise uses entries of ~/.netrc."""

    def __init__(self, header: str = ""):
        self.header = header

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self.header:
            request.headers["Authorization"] = self.header
        return request


def basic_auth(user: str, password: str) -> str:
    """Return the Authorization header for a user and password."""
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def new_session(adapter: TimedAdapter | None = None) -> requests.Session:
    """Return a session that enforces deadlines and connects only to permitted addresses. The caller closes it."""
    session = requests.Session()
    session.auth = Authorization()
    for scheme in ("http://", "https://"):
        session.mount(scheme, adapter or TimedAdapter())
    return session


def exchange(
    session: requests.Session,
    method: str,
    url: str,
    *,
    seconds: float = DEADLINE_SECONDS,
    read_timeout: float = READ_TIMEOUT_SECONDS,
    until: float | None = None,
    max_bytes: int = MAX_RESPONSE_BYTES,
    url_name: str = "the account's base URL",
    **content: Any,
) -> ServerResponse:
    """Send one request and return its response, whatever the status.

    seconds: limit for the whole call.
    read_timeout: seconds between two bytes.
    until: time.monotonic() by which the call must end, if that is before `seconds` are over.
    max_bytes: limit of the response.
    url_name: what the user calls this URL, for error messages.
    content: as for requests.

    Raises UnreachableError if nothing of the request was sent, else NoResponseError or ResponseTooLargeError.
    """
    ends = time.monotonic() + seconds
    call = Call(ends if until is None else min(ends, until))
    previous = CALL.set(call)
    try:
        with session.request(
            method,
            url,
            timeout=(CONNECT_TIMEOUT_SECONDS, read_timeout),
            allow_redirects=False,
            stream=True,
            **content,
        ) as response:
            return ServerResponse(response.status_code, response.headers, _body(response, max_bytes))
    except _TRANSPORT_ERRORS as error:
        raise _failed(host_of(url) or url, error, call, seconds, url_name) from error
    finally:
        CALL.reset(previous)


def _failed(host: str, error: Exception, call: Call, seconds: float, url_name: str) -> errors.MMSError:
    """Return the error for a missing response; its class shows whether the server may have received the request."""
    reasons = list(_chain(error))

    def because(*kinds: type[BaseException]) -> bool:
        return any(isinstance(reason, kinds) for reason in reasons)

    if because(*_INVALID_URL_ERRORS):
        return errors.UnreachableError(f"“{host}” isn't a valid address. Check {url_name}.")
    if forbidden := next((reason for reason in reasons if isinstance(reason, ForbiddenAddressError)), None):
        return errors.UnreachableError(f"{host} is not called: {forbidden.strerror}. Check {url_name}.")
    if because(ssl.SSLCertVerificationError):
        return errors.UnreachableError(f"The certificate of {host} isn't trusted: {_describe(reasons)}.")
    if not call.sent:
        return errors.UnreachableError(
            f"Couldn't reach {host}: {_describe(reasons)}. Check that the server is running."
        )
    if because(_BodyTooLargeError):
        return errors.ResponseTooLargeError(f"{host} sent no usable response: {_describe(reasons)}.")
    if call.over:
        return errors.NoResponseError(f"The response from {host} was not complete after {seconds:.0f} s.")
    return errors.NoResponseError(f"{host} sent no usable response: {_describe(reasons)}.")


# http.client and urllib3 raise ValueError for responses that they can't parse.
_TRANSPORT_ERRORS = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    ValueError,
    OSError,
)
_INVALID_URL_ERRORS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.InvalidSchema,
    requests.exceptions.MissingSchema,
)


class _BodyTooLargeError(urllib3.exceptions.HTTPError):
    """The body exceeds the limit."""


def _body(response: requests.Response, max_bytes: int) -> bytes:
    """Return the body, up to `max_bytes` bytes."""
    parts, size = [], 0
    for part in _parts(response.raw):
        size += len(part)
        if size > max_bytes:
            limit = f"{max_bytes // 1024**2} MB" if max_bytes >= 1024**2 else f"{max_bytes // 1024} kB"
            raise _BodyTooLargeError(f"the response is larger than {limit}")
        parts.append(part)
    return b"".join(parts)


def host_of(url: str) -> str:
    """Return host and port of a URL without user information; "" if it has none."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return ""


def _parts(raw: urllib3.HTTPResponse) -> Iterator[bytes]:
    """Yield data as it arrives, without waiting for a full buffer, so that slow responses hit their limits."""
    while part := raw.read1(65536, decode_content=True):
        yield part


def _chain(error: Any) -> Iterator[Any]:
    """Yield the error and its causes, outermost first."""
    seen: list[Any] = []
    while isinstance(error, BaseException) and error not in seen:
        seen.append(error)
        yield error
        inner = getattr(error, "reason", None) or (error.args[0] if error.args else None)
        error = inner if isinstance(inner, BaseException) else error.__cause__ or error.__context__


def _describe(reasons: list[Any]) -> str:
    """Describe the innermost cause by the message of its errno, else by its own text."""
    for reason in reversed(reasons):
        if isinstance(reason, OSError) and reason.strerror:
            return reason.strerror.lower()
        if isinstance(reason, TimeoutError | urllib3.exceptions.TimeoutError | requests.Timeout):
            return "it took too long"
    if isinstance(reasons[-1], ValueError | http.client.BadStatusLine | http.client.UnknownProtocol):
        # These quote the response, in parts.
        is_closed = isinstance(reasons[-1], http.client.RemoteDisconnected)
        return "it closed the connection" if is_closed else "the response isn't valid HTTP"
    return wire_values.text(reasons[-1], 300)


def retry_after(answer: ServerResponse) -> float | None:
    """Return the Retry-After of a response in seconds from now; None if it has none.

    A date is compared with the response's own Date, so a wrong clock on the server doesn't matter.
    """
    value = answer.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    retry_at, now = _date(value), server_time(answer)
    return max(0.0, (retry_at - (now or datetime.now(UTC))).total_seconds()) if retry_at else None


def server_time(answer: ServerResponse) -> datetime | None:
    """Return the time of the response by the server's clock, to the second; None if it has no valid Date."""
    return _date(answer.headers.get("Date", ""))


def _date(header: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(header)
        return found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
