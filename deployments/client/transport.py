"""Authenticated calls to an MMS: return a 2xx response or raise MMSError."""

import dataclasses
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from deployments.client import errors, wire, wire_values
from deployments.client.http import (
    DEADLINE_SECONDS,
    MAX_RESPONSE_BYTES,
    READ_TIMEOUT_SECONDS,
    Authorization,
    ServerResponse,
    exchange,
    host_of,
    new_session,
    retry_after,
    server_time,
)
from netguard.redaction import Redactor

MAX_LIST_BYTES = 64 * 1024**2  # a list of 10,000 models, or a long log, has about 4 MB
EXTENSIONS = "x-mms-extensions"


@dataclass(frozen=True)
class KnownSecrets:
    """Secrets of an account, which its server must not echo: all, and those without the services' scoring keys."""

    credentials: Redactor = field(default_factory=Redactor)
    all: Redactor = field(default_factory=Redactor)


class Credential(Protocol):
    """Source of the bearer token for calls."""

    def token(self, until: float) -> str:
        """Return a bearer token, or "" for none, before time.monotonic() reaches `until`.

        Raises NotSentError or TokenRefusedError.
        """

    def renew(self, refused: str, until: float) -> str:
        """Return a new token after a 401 for `refused`, or "" if none is available.

        Raises NotSentError or TokenRefusedError.
        """


class BearerToken:
    """Fixed token of an account."""

    def __init__(self, token: str):
        self._token = token

    def token(self, until: float) -> str:
        """Return the token."""
        return self._token

    def renew(self, refused: str, until: float) -> str:
        """Return "": a fixed token can't be renewed."""
        return ""


class Transport:
    """Calls to one server as one account.

    `extensions` are those that the server's last response listed. Limits are in seconds: `read_timeout` between two
    bytes, `deadline` for a whole call.
    """

    def __init__(
        self,
        credential: Credential,
        read_timeout: float | None = None,
        deadline: float | None = None,
        known_secrets: Callable[[], KnownSecrets] = KnownSecrets,
    ):
        self.session = new_session()
        self.credential = credential
        self.read_timeout, self.deadline = read_timeout or READ_TIMEOUT_SECONDS, deadline or DEADLINE_SECONDS
        self._known_secrets, self._sent_secrets = known_secrets, set[str]()
        self._known: KnownSecrets | None = None
        self.extensions: set[str] = set()
        self.called_at = datetime.now(UTC)  # start of the last call
        self.clock_ahead: timedelta | None = None  # of the server, by its last response; None: unknown

    def close(self) -> None:
        self.session.close()

    def call(
        self,
        method: str,
        url: str,
        params: dict[str, Any],
        body: dict[str, Any] | None = None,
        request_id: str = "",
        secrets: Sequence[str] = (),
        returns_key: bool = False,
        max_bytes: int = MAX_RESPONSE_BYTES,
        until: float | None = None,
        etag: str = "",
    ) -> ServerResponse:
        """Send a request and return its 2xx response, or a 304 if the resource still has this `etag`.

        request_id: sent as `x-ms-client-request-id` (MMS API reference, "Request Header" of each operation).
        secrets: texts of the request to remove from this and all later responses, like those of the account.
        returns_key: the response has a scoring key, so only other secrets are removed from it.
        max_bytes: limit of the response.
        until: time.monotonic() by which the call must end, if that is before its deadline.

        Raises MMSError.
        """
        headers = {"Accept": "application/json"} | ({"x-ms-client-request-id": request_id} if request_id else {})
        headers |= {"If-None-Match": etag} if etag else {}
        self.called_at = datetime.now(UTC)
        ends = time.monotonic() + self.deadline
        ends = ends if until is None else min(ends, until)
        content: dict[str, Any] = {"params": params, "json": body, "headers": headers, "max_bytes": max_bytes}
        self._sent_secrets |= set(secrets)
        self.load_secrets()  # a failure after the request has been sent would lose its response
        token = self.credential.token(ends)
        answer = self._send(method, url, token, ends, content)
        # A request rejected with 401 had no effect, so it is safe to repeat.
        if answer.status == 401 and (renewed := self.credential.renew(token, ends)):
            token = renewed
            answer = self._send(method, url, token, ends, content)
        sent_at = server_time(answer)
        self.clock_ahead = sent_at - datetime.now(UTC) if sent_at else None
        answer = dataclasses.replace(answer, redactor=self._redactor(token, returns_key))
        self.extensions = {name.strip() for name in answer.headers.get(EXTENSIONS, "").split(",")} - {""}
        if 200 <= answer.status < 300 or (etag and answer.status == 304):
            return answer
        raise _error_for(host_of(url), answer)

    def load_secrets(self) -> KnownSecrets:
        """Return the account's secrets, which are read once, before the first call."""
        if self._known is None:
            self._known = self._known_secrets()
        return self._known

    def _redactor(self, token: str, returns_key: bool = False) -> Redactor:
        """Return the redactor for responses."""
        known = self.load_secrets().credentials if returns_key else self.load_secrets().all
        return known.including([token, *self._sent_secrets])

    def _send(self, method: str, url: str, token: str, ends: float, content: dict[str, Any]) -> ServerResponse:
        if token and not re.fullmatch(r"[!-~]+", token):
            raise errors.TokenRefusedError(
                "This account's token can't be sent: it contains characters that a token can't have."
            )
        self.session.auth = Authorization(f"Bearer {token}" if token else "")
        try:
            return exchange(
                self.session,
                method,
                url,
                seconds=self.deadline,
                read_timeout=self.read_timeout,
                until=ends,
                **content,
            )
        except errors.MMSError as error:  # may quote an invalid response
            message = self._redactor(token).text(str(error))
            if message == str(error):
                raise
            raise type(error)(message, retry_after=error.retry_after) from None


def _error_for(host: str, answer: ServerResponse) -> errors.MMSError:
    """Return the error for a status other than 2xx, with the server's explanation if it has one."""
    failure = _failure(answer)
    wait = retry_after(answer)
    reason = f": {failure.message}" if failure.message else "."
    status = answer.status
    if status == 429 or (status == 503 and wait is not None):
        return errors.BusyError(f"{host} is busy (status {status}){reason}", failure, wait)
    if status < 400:
        return _unexpected_status(host, answer)
    if status == 401:
        return errors.TokenRefusedError(
            f"{host} rejected this account's token (status 401). An operator has to renew it."
        )
    if status in errors.ERROR_BY_STATUS or status < 500:
        kind = errors.ERROR_BY_STATUS.get(status, errors.RejectedError)
        return kind(failure.message or f"{host} rejected the request (status {status}).", failure, wait)
    return errors.ServerFaultError(f"{host} failed (status {status}){reason}", failure, wait)


def _unexpected_status(host: str, answer: ServerResponse) -> errors.MMSError:
    """Return the error for a redirect or another unexpected status below 400."""
    if answer.status not in {301, 302, 303, 307, 308}:
        return errors.InvalidResponseError(f"{host} responded with the unexpected status {answer.status}.")
    target = wire_values.text(answer.redactor.text(host_of(answer.headers.get("Location", ""))), 200)
    # 303 may follow a request that took effect.
    kind = errors.InvalidResponseError if answer.status == 303 else errors.RedirectedError
    return kind(
        f"{host} redirects to another address{f' ({target})' if target else ''}, where the token must not be sent. "
        "Correct the account's base URL."
    )


def _failure(answer: ServerResponse) -> wire.Failure:
    """Return the error object of a response; empty if it isn't JSON, such as an HTML page."""
    try:
        return wire.Failure.from_wire(answer.json())
    except (wire_values.MalformedPayloadError, RecursionError):
        return wire.Failure()
