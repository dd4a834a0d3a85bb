"""What a hosting account shows to its server: the token that somebody put in, or one that Entra ID gives for it.

Tokens of Entra ID (https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow) live in the
memory of this process and nowhere else: not in the database, and so in no backup; not in Redis. A process that starts
fetches its own.
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

FETCH_SECONDS = 15.0  # for fetching a token
MAX_RESPONSE_BYTES = 256 * 1024  # bytes
RENEW_BEFORE_SECONDS = 300.0  # seconds before its end at which a token is renewed; half of its life, if that is less
SHARED_FAILURE_SECONDS = 2.0  # seconds for which threads that waited for the same token share the error of who asked


@dataclass(frozen=True)
class EntraClient:
    """An application registered with Entra ID, and what it asks for. `authority` is a base URL."""

    authority: str
    tenant: str
    client_id: str
    secret: str = field(repr=False)
    scope: str


@dataclass(frozen=True)
class AccessToken:
    """A token; times are of time.monotonic()."""

    token: str = field(repr=False)
    renew_at: float
    ends_at: float


@dataclass
class _CachedToken:
    """Where the token of one client is kept; one thread at a time fetches it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    kept: AccessToken | None = None
    trouble: errors.MMSError | None = None
    troubled_at: float = 0.0


_CACHE: dict[EntraClient, _CachedToken] = {}


def credential_for(account: HostingAccount) -> Credential:
    """The credential of the account. Asks nobody yet."""
    if account.sign_in == HostingAccount.SignIn.ENTRA:
        return EntraCredential(entra_client(account))
    return BearerToken(account.token or "")


def entra_client(account: HostingAccount) -> EntraClient:
    return EntraClient(account.authority, account.tenant, account.client_id, account.client_secret or "", account.scope)


class EntraCredential:
    """Tokens of one client, fetched when they are needed and kept for all threads of this process."""

    def __init__(self, client: EntraClient):
        self.client = client
        self._place = _CACHE.setdefault(client, _CachedToken())

    def token(self, until: float) -> str:
        """A token that is good for a while. Raises NoToken (safe to try again) or TokenRefused (a person is needed)."""
        with self._place.lock:
            kept = self._place.kept
            if kept is not None and time.monotonic() < kept.renew_at:
                return kept.token
            try:
                return self._fetch(until)
            except errors.NoTokenError:
                if kept is not None and time.monotonic() < kept.ends_at:
                    return kept.token
                raise

    def renew(self, refused: str, until: float) -> str:
        with self._place.lock:
            kept = self._place.kept
            if kept is not None and kept.token != refused:
                return kept.token  # another thread was faster
            self._place.kept = None
            return self._fetch(until)

    def _fetch(self, until: float) -> str:
        place = self._place
        if place.trouble is not None and time.monotonic() < place.troubled_at + SHARED_FAILURE_SECONDS:
            raise place.trouble
        try:
            place.kept, place.trouble = fetch_token(self.client, until), None
        except errors.MMSError as error:
            place.trouble, place.troubled_at = error, time.monotonic()
            raise
        return place.kept.token


def fetch_token(client: EntraClient, until: float | None = None) -> AccessToken:
    """Ask Entra ID for a token. Raises NoToken, TokenRefused; no error text has the secret or a token in it."""
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
                most=MAX_RESPONSE_BYTES,
                named="the account's authority",
                data=form,
                headers={"Accept": "application/json"},
            )
    except errors.MMSError as error:
        raise errors.NoTokenError(f"Couldn't get a token for this account. {error}") from None
    return _read(client, answer)


def _read(client: EntraClient, answer: ServerResponse) -> AccessToken:
    host = host_of(client.authority)
    try:
        said = answer.json()
    except wire_values.MalformedPayloadError:
        said = {}
    said = said if isinstance(said, dict) else {}
    if answer.status == 200:
        return _parse_token(host, said)
    words = _explanation(client, said)
    if answer.status in {400, 401, 403} and said.get("error") not in {"temporarily_unavailable", "slow_down"}:
        raise errors.TokenRefusedError(
            f"{host} refused to issue a token for this account (status {answer.status}){words}"
        )
    if 300 <= answer.status < 400:
        words = ". It redirects to another address, where the secret must not be sent. Correct the account's authority."
    elif answer.status == 404:
        words = words if said else ". The address doesn't exist. Check the account's authority and tenant."
    raise errors.NoTokenError(
        f"Couldn't get a token for this account: {host} responded with status {answer.status}{words}",
        retry_after=retry_after(answer),
    )


def _parse_token(host: str, said: dict[str, Any]) -> AccessToken:
    token, kind, lasts = said.get("access_token"), said.get("token_type", "Bearer"), said.get("expires_in", 3600)
    if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token) or str(kind).lower() != "bearer":
        raise errors.NoTokenError(
            f"Couldn't get a token for this account: the response from {host} has no bearer token."
        )
    try:
        life = max(0.0, min(float(lasts), 86400.0))
    except (TypeError, ValueError):
        life = 3600.0
    now = time.monotonic()
    return AccessToken(token, now + life - min(RENEW_BEFORE_SECONDS, life / 2), now + life)


def _explanation(client: EntraClient, said: dict[str, Any]) -> str:
    """What the authority says of its refusal, on one line, without its traces and without the secret."""
    text = wire_values.text(said.get("error_description") or said.get("error") or "", 2000)
    text = re.split(r"\s*(?:Trace ID|Correlation ID|Timestamp):", text)[0]
    for secret in {client.secret, quote(client.secret, safe="")}:
        text = text.replace(secret, "…")
    text = " ".join(text.split())[:300].rstrip(". ")
    return f": {text}." if text else "."
