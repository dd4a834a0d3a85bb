"""One HTTP call to an MMS: limits of time and size, no redirects, and every outcome as an answer or an MMSError."""

import http.client
import json
import re
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
from deployments.connections import CALL, Call, TimedAdapter

CONNECT_TIMEOUT = 5.0  # seconds, for each address of the host
READ_TIMEOUT = 20.0  # seconds between two bytes of an answer
DEADLINE = 60.0  # seconds for a whole call; less than a worker's claim (schedule.LEASE)
MAX_ANSWER = 4 * 1024**2  # bytes
MAX_LIST = 64 * 1024**2  # bytes; a list of 10 000 models has about 4 MB, as has a long log
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

    def __init__(self, token: str, read_timeout: float | None = None, deadline: float | None = None):
        self.session = requests.Session()
        self.session.auth = BearerToken(token)
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, TimedAdapter())
        self.token, self.read_timeout, self.deadline = token, read_timeout or READ_TIMEOUT, deadline or DEADLINE
        self.extensions: set[str] = set()
        self.called_at = datetime.now(UTC)  # when the last call began

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
        most: int = MAX_ANSWER,
        until: float | None = None,
    ) -> Answer:
        """The answer, if its status is 2xx. Raises MMSError; no error text has one of the `secrets` or the token.

        most: bytes. until: of time.monotonic(), for calls that have to end before their own deadline.
        """
        if self.token and not re.fullmatch(r"[!-~]+", self.token):
            raise errors.TokenRefused("This account's token cannot be sent: it has letters that no token has.")
        headers = {"Accept": "application/json"} | ({"x-ms-client-request-id": request_id} if request_id else {})
        self.called_at = datetime.now(UTC)
        ends = time.monotonic() + self.deadline
        call = Call(ends if until is None else min(ends, until))
        mine = CALL.set(call)
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
                answer = Answer(response.status_code, response.headers, _body(response, most))
        except _BROKEN as error:
            raise self._failed(host_of(url) or url, error, call) from error
        finally:
            CALL.reset(mine)
        self.extensions = {name.strip() for name in answer.headers.get(EXTENSIONS, "").split(",")} - {""}
        if 200 <= answer.status < 300:
            return answer
        raise _refusal(host_of(url), answer, [self.token, *(secrets or [])])

    def _failed(self, host: str, error: Exception, call: Call) -> errors.MMSError:
        """No answer at all. What matters is whether the server can have got the request."""
        reasons = list(_chain(error))

        def because(*kinds: type[BaseException]) -> bool:
            return any(isinstance(reason, kinds) for reason in reasons)

        if because(*_NO_ADDRESS):
            return errors.Unreachable(f"“{host}” is no address that can be called: check the account's base URL.")
        if because(ssl.SSLCertVerificationError):
            return errors.Unreachable(f"The certificate of {host} cannot be trusted: {_plain(reasons)}.")
        if not call.sent:
            return errors.Unreachable(f"{host} cannot be reached: {_plain(reasons)}. Is the server running?")
        if because(_TooLarge):
            return errors.TooLarge(f"{host} gave no usable answer: {_plain(reasons)}.")
        if call.over:
            return errors.NoAnswer(f"The answer of {host} was not complete after {self.deadline:.0f} s.")
        return errors.NoAnswer(f"{host} gave no usable answer: {_plain(reasons)}.")


# A ValueError is what http.client and its friends raise for what makes no sense to them.
_BROKEN = (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException, ValueError, OSError)
_NO_ADDRESS = (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.MissingSchema)


class _TooLarge(urllib3.exceptions.HTTPError):
    pass


def _body(response: requests.Response, most: int) -> bytes:
    """The body, up to its limit of size."""
    parts, size = [], 0
    for part in _parts(response.raw):
        size += len(part)
        if size > most:
            raise _TooLarge(f"the answer is larger than {most // 1024**2} MB")
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
    retry_after = _retry_after(answer)
    said = f": {failure.message}" if failure.message else "."
    status = answer.status
    if status == 429 or (status == 503 and retry_after is not None):
        return errors.Busy(f"{host} is busy (status {status}){said}", failure, retry_after)
    if status < 400:
        return _elsewhere(host, answer)
    if status == 401:
        return errors.TokenRefused(f"{host} refuses this account's token (status 401): an operator has to renew it.")
    if status in errors.REJECTED or status < 500:
        kind = errors.REJECTED.get(status, errors.Rejected)
        return kind(failure.message or f"{host} refused the request (status {status}).", failure, retry_after)
    return errors.ServerFault(f"{host} failed (status {status}){said}", failure, retry_after)


def _elsewhere(host: str, answer: Answer) -> errors.MMSError:
    """A redirect, or another status below 400 that has no meaning here."""
    if answer.status not in {301, 302, 303, 307, 308}:
        return errors.Unintelligible(f"{host} answered with status {answer.status}, which means nothing here.")
    goal = wire.text(host_of(answer.headers.get("Location", "")), 200)
    # 303 may be said of something that was done.
    kind = errors.Unintelligible if answer.status == 303 else errors.Redirected
    return kind(
        f"{host} sends its callers elsewhere{f' (to {goal})' if goal else ''}, where the token must not go: "
        "correct the account's base URL."
    )


def _failure(answer: Answer) -> wire.Failure:
    """The error object of an answer; a page of HTML says nothing."""
    try:
        return wire.Failure.from_wire(answer.json())
    except (wire.Garbled, RecursionError):
        return wire.Failure()


def _retry_after(answer: Answer) -> float | None:
    """A Retry-After in seconds or as a date, in seconds from now; None where there is none.

    A date is compared with the answer's own: a server whose clock is a day off means minutes all the same.
    """
    said = answer.headers.get("Retry-After", "").strip()
    if said.isascii() and said.isdigit():
        return float(said[:9])
    then, now = _date(said), _date(answer.headers.get("Date", ""))
    return max(0.0, (then - (now or datetime.now(UTC))).total_seconds()) if then else None


def _date(header: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(header)
        return found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
