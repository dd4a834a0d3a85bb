"""Credentials of hosting accounts: a stored bearer token, or tokens that Entra ID issues.

Tokens of Entra ID (https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow) are only held
in the memory of each process: never in the database, its backups or Redis.
"""

import re
import threading
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from deployments.client import errors, wire_values
from deployments.client.http import ServerResponse, exchange, host_of, new_session, retry_after
from deployments.client.transport import BearerToken, Credential
from deployments.models import HostingAccount
from encryption.fields import UndecryptableError
from netguard.redaction import Redactor

FETCH_SECONDS = 15.0  # per request for a token
MAX_RESPONSE_BYTES = 256 * 1024
RENEW_BEFORE_SECONDS = 300.0  # before expiry, or half of the lifetime if that is less
SHARED_FAILURE_SECONDS = 2.0  # how long threads that waited for the same token share its error


@dataclass(frozen=True)
class EntraClient:
    """Application registered with Entra ID, and the scope of its tokens. `authority` is a base URL."""

    authority: str
    tenant: str
    client_id: str
    secret: str = field(repr=False)
    scope: str


@dataclass(frozen=True)
class AccessToken:
    """Token with its renewal and expiry times, as values of time.monotonic()."""

    token: str = field(repr=False)
    renew_at: float
    ends_at: float


@dataclass
class _CachedToken:
    """Token of one client, or the last error. The lock lets one thread at a time fetch it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    token: AccessToken | None = None
    error: errors.MMSError | None = None
    failed_at: float = 0.0


_CACHE: dict[EntraClient, _CachedToken] = {}


def credential_for(account: HostingAccount) -> Credential:
    """Return the credential of the account. Makes no request."""
    try:
        if account.sign_in == HostingAccount.SignIn.ENTRA:
            return EntraCredential(entra_client(account))
        return BearerToken(account.token or "")
    except UndecryptableError as error:
        return UndecryptableCredential(str(error))


def entra_client(account: HostingAccount) -> EntraClient:
    """Return the account's Entra ID application."""
    return EntraClient(account.authority, account.tenant, account.client_id, account.client_secret or "", account.scope)


class UndecryptableCredential:
    """Credential that can't be decrypted. That is a problem of this site: the server isn't called, nor blocked."""

    def __init__(self, reason: str):
        self.reason = reason

    def token(self, until: float) -> str:
        """Raise NoTokenError."""
        raise errors.NoTokenError(self.reason)

    def renew(self, refused: str, until: float) -> str:
        """Raise NoTokenError."""
        raise errors.NoTokenError(self.reason)


class EntraCredential:
    """Tokens of one client, fetched on demand and shared by all threads of this process."""

    def __init__(self, client: EntraClient):
        self.client = client
        self._cached = _CACHE.setdefault(client, _CachedToken())

    def token(self, until: float) -> str:
        """Return a valid token, fetching it if necessary before time.monotonic() reaches `until`.

        Raises NoTokenError (try again later) or TokenRefusedError (a user has to act).
        """
        with self._cached.lock:
            current = self._cached.token
            if current is not None and time.monotonic() < current.renew_at:
                return current.token
            try:
                return self._fetch(until)
            except errors.NoTokenError:
                if current is not None and time.monotonic() < current.ends_at:
                    return current.token
                raise

    def renew(self, refused: str, until: float) -> str:
        """Return a token other than `refused`. Raises the same errors as `token`."""
        with self._cached.lock:
            current = self._cached.token
            if current is not None and current.token != refused:
                return current.token  # another thread renewed it
            self._cached.token = None
            return self._fetch(until)

    def _fetch(self, until: float) -> str:
        cached = self._cached
        if cached.error is not None and time.monotonic() < cached.failed_at + SHARED_FAILURE_SECONDS:
            raise cached.error
        try:
            cached.token, cached.error = fetch_token(self.client, until), None
        except errors.MMSError as error:
            cached.error, cached.failed_at = error, time.monotonic()
            raise
        return cached.token.token


def fetch_token(client: EntraClient, until: float | None = None) -> AccessToken:
    """Request a token from Entra ID.

    until: time.monotonic() by which the request must end. Raises NoTokenError or TokenRefusedError; their messages
        contain neither the secret nor a token.
    """
    if not client.secret:
        raise errors.TokenRefusedError("This account has no client secret. An operator has to enter one.")
    url = f"{client.authority.rstrip('/')}/{quote(client.tenant, safe='')}/oauth2/v2.0/token"
    form = {
        "grant_type": "client_credentials",
        "client_id": client.client_id,
        "client_secret": client.secret,
        "scope": client.scope,
    }
    try:
        with new_session() as session:
            answer = exchange(
                session,
                "POST",
                url,
                seconds=FETCH_SECONDS,
                read_timeout=FETCH_SECONDS,
                until=until,
                max_bytes=MAX_RESPONSE_BYTES,
                url_name="the account's authority",
                data=form,
                headers={"Accept": "application/json"},
            )
    except errors.MMSError as error:
        raise errors.NoTokenError(f"Couldn't get a token for this account. {error}") from None
    return _read(client, answer)


def _read(client: EntraClient, answer: ServerResponse) -> AccessToken:
    host = host_of(client.authority)
    try:
        payload = answer.json()
    except wire_values.MalformedPayloadError:
        payload = {}
    payload = payload if isinstance(payload, dict) else {}
    if answer.status == 200:
        return _parse_token(host, payload)
    words = _explanation(client, payload)
    if answer.status in {400, 401, 403} and payload.get("error") not in {"temporarily_unavailable", "slow_down"}:
        raise errors.TokenRefusedError(
            f"{host} refused to issue a token for this account (status {answer.status}){words}"
        )
    if 300 <= answer.status < 400:
        words = ". It redirects to another address, where the secret must not be sent. Correct the account's authority."
    elif answer.status == 404:
        words = words if payload else ". The address doesn't exist. Check the account's authority and tenant."
    raise errors.NoTokenError(
        f"Couldn't get a token for this account: {host} responded with status {answer.status}{words}",
        retry_after=retry_after(answer),
    )


def _parse_token(host: str, payload: dict[str, Any]) -> AccessToken:
    token, kind = payload.get("access_token"), payload.get("token_type", "Bearer")
    if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token) or str(kind).lower() != "bearer":
        raise errors.NoTokenError(
            f"Couldn't get a token for this account: the response from {host} has no bearer token."
        )
    try:
        life = max(0.0, min(float(payload.get("expires_in", 3600)), 86400.0))
    except (TypeError, ValueError):
        life = 3600.0
    now = time.monotonic()
    return AccessToken(token, now + life - min(RENEW_BEFORE_SECONDS, life / 2), now + life)


def _explanation(client: EntraClient, payload: dict[str, Any]) -> str:
    """Return the authority's error description on one line, without trace ids or the secret."""
    text = wire_values.text(payload.get("error_description") or payload.get("error") or "")
    text = re.split(r"\s*(?:Trace ID|Correlation ID|Timestamp):", Redactor([client.secret]).text(text)[:2000])[0]
    text = " ".join(text.split())[:300].rstrip(". ")
    return f": {text}." if text else "."
