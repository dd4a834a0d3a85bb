"""One HTTP call to an MMS: limits of time and size, no redirects, and every outcome as an answer or an MMSError."""

import json
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.auth import AuthBase

from deployments import errors, wire

CONNECT_TIMEOUT = 5.0  # seconds
READ_TIMEOUT = 20.0  # seconds between two bytes of an answer
DEADLINE = 60.0  # seconds for reading a whole answer
MAX_ANSWER = 64 * 1024**2  # bytes; a list of 10 000 models has about 4 MB
EXTENSIONS = "x-mms-extensions"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Any  # case-insensitive mapping
    body: bytes

    def json(self) -> Any:
        """The body as JSON. Raises Garbled."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise wire.Garbled("The body is no JSON.") from None


class BearerToken(AuthBase):
    """Given as `auth`, for requests would else prefer an entry for the host in somebody's .netrc."""

    def __init__(self, token: str):
        self.token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self.token:
            request.headers["Authorization"] = f"Bearer {self.token}"
        return request


class Transport:
    """Calls to one server with one token. `extensions` is what the server's last answer said that it offers."""

    def __init__(self, token: str, read_timeout: float = READ_TIMEOUT, deadline: float = DEADLINE):
        self.session = requests.Session()
        self.session.auth = BearerToken(token)
        self.token, self.read_timeout, self.deadline = token, read_timeout, deadline
        self.extensions: set[str] = set()

    def close(self) -> None:
        self.session.close()

    def call(
        self,
        method: str,
        url: str,
        params: dict[str, Any],
        body: dict[str, Any] | None = None,
        request_id: str = "",
        secrets: list[str] | None = None,
    ) -> Answer:
        """The answer, if its status is 2xx. Raises MMSError; no error text has one of the `secrets` or the token."""
        headers = {"Accept": "application/json"} | ({"x-ms-client-request-id": request_id} if request_id else {})
        try:
            with self.session.request(
                method,
                url,
                params=params,
                json=body,
                headers=headers,
                timeout=(CONNECT_TIMEOUT, self.read_timeout),
                allow_redirects=False,
                stream=True,
            ) as response:
                answer = Answer(response.status_code, response.headers, self._read(response))
        except (requests.RequestException, urllib3.exceptions.HTTPError, UnicodeError, OSError) as error:
            raise _failed_call(host_of(url) or url, error) from error
        self.extensions = {name.strip() for name in answer.headers.get(EXTENSIONS, "").split(",")} - {""}
        if 200 <= answer.status < 300:
            return answer
        raise _refusal(host_of(url), answer, [self.token, *(secrets or [])])

    def _read(self, response: requests.Response) -> bytes:
        """The body, within the limits of size and time."""
        parts, size, end = [], 0, time.monotonic() + self.deadline
        for part in _parts(response.raw):
            size += len(part)
            if size > MAX_ANSWER:
                raise urllib3.exceptions.HTTPError(f"the answer is larger than {MAX_ANSWER // 1024**2} MB")
            if time.monotonic() > end:
                raise urllib3.exceptions.HTTPError(f"the answer was not complete after {self.deadline:.0f} s")
            parts.append(part)
        return b"".join(parts)


def host_of(url: str) -> str:
    """Host and port of a URL, without what may stand before them; "" where there is none."""
    try:
        return urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return ""


def _parts(raw: urllib3.HTTPResponse) -> Iterator[bytes]:
    """What arrives, as it arrives: a server that sends ten bytes a second is seen to do so."""
    while part := raw.read1(65536, decode_content=True):
        yield part


def _failed_call(host: str, error: Exception) -> errors.MMSError:
    """No answer at all. What matters is whether the request can have reached the server."""
    reasons = list(_chain(error))

    def because(*kinds: type[BaseException]) -> bool:
        return any(isinstance(reason, kinds) for reason in reasons)

    if because(*_NO_ADDRESS):
        return errors.Unreachable(f"“{host}” is no address that can be called: check the account's base URL.")
    if because(ssl.SSLCertVerificationError):
        return errors.Unreachable(f"The certificate of {host} cannot be trusted: {_plain(reasons)}.")
    if because(*_NEVER_CONNECTED):
        return errors.Unreachable(f"{host} cannot be reached: {_plain(reasons)}. Is the server running?")
    return errors.NoAnswer(f"{host} gave no usable answer: {_plain(reasons)}.")


_NO_ADDRESS = (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema)
_NEVER_CONNECTED = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)


def _chain(error: Any) -> Iterator[Any]:
    """The error and what led to it, outermost first."""
    seen: list[Any] = []
    while isinstance(error, BaseException) and error not in seen:
        seen.append(error)
        yield error
        inner = getattr(error, "reason", None) or (error.args[0] if error.args else None)
        error = inner if isinstance(inner, BaseException) else error.__cause__ or error.__context__


def _plain(reasons: list[Any]) -> str:
    """The innermost reason in words: an error number's text, else the exception's own."""
    for reason in reversed(reasons):
        if isinstance(reason, OSError) and reason.strerror:
            return reason.strerror.lower()
        if isinstance(reason, TimeoutError | urllib3.exceptions.TimeoutError | requests.Timeout):
            return "it took too long"
    return wire.text(reasons[-1], 300)


def _refusal(host: str, answer: Answer, secrets: list[str]) -> errors.MMSError:
    """The error for a status that is no success, with the server's own words where it has some."""
    failure = _failure(answer).redacted(secrets)
    retry_after = _seconds(answer.headers.get("Retry-After", ""))
    said = f": {failure.message}" if failure.message else ""
    status = answer.status
    if status == 429 or (status == 503 and retry_after is not None):
        return errors.Busy(f"{host} is busy (status {status}){said}", failure, retry_after)
    if status < 400:
        goal = wire.text(host_of(answer.headers.get("Location", "")), 200)
        return errors.Redirected(
            f"{host} sends its callers elsewhere{f' (to {goal})' if goal else ''}, where the token must not go: "
            "correct the account's base URL.",
        )
    if status == 401:
        return errors.TokenRefused(f"{host} refuses this account's token (status 401): an operator has to renew it.")
    if status in errors.REJECTED or status < 500:
        kind = errors.REJECTED.get(status, errors.Rejected)
        return kind(failure.message or f"{host} refused the request (status {status}).", failure, retry_after)
    return errors.ServerFault(f"{host} failed (status {status}){said}", failure, retry_after)


def _failure(answer: Answer) -> wire.Failure:
    """The error object of an answer; a page of HTML says nothing."""
    try:
        return wire.Failure.from_wire(answer.json())
    except wire.Garbled:
        return wire.Failure()


def _seconds(retry_after: str) -> float | None:
    """A Retry-After in seconds or as a date, in seconds from now; None where there is none."""
    if retry_after.strip().isdigit():
        return float(retry_after[:9])
    try:
        when = parsedate_to_datetime(retry_after)
    except (ValueError, TypeError, IndexError):
        return None
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
