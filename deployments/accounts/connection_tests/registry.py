"""Connection test of a registry: request /v2/ with user and password.

Implements the token authentication of the distribution protocol
(https://distribution.github.io/distribution/spec/auth/token/), which the registries of Azure, GitHub and Docker use. No
image is read or written, so the test can't tell whether the user may push.
"""

import re
import time
from urllib.parse import urlsplit

import requests
from django.conf import settings

from deployments.accounts.connection_tests import (
    CALL_SECONDS,
    ConnectionTestResult,
    insecure_note,
    slow_note,
    unreachable,
)
from deployments.client import errors, wire_values
from deployments.client.deadlines import TimedAdapter
from deployments.client.http import Authorization, ServerResponse, basic_auth, exchange, host_of, new_session
from deployments.models.validators import BUNDLED_STORE, registry_url
from netguard.addresses import is_forbidden_host
from netguard.connect import find_forbidden
from netguard.destinations import Destinations

MAX_RESPONSE_BYTES = 256 * 1024
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_WRONG_CREDENTIALS = "Check the user and password."


class _RegistryRefusedError(Exception):
    """The registry can't be used with these settings."""

    def __init__(self, message: str, advice: str):
        super().__init__(message)
        self.result = ConnectionTestResult(False, message, advice)


def try_registry(location: str, user: str, password: str) -> ConnectionTestResult:
    """Request /v2/ of the registry. location: valid for `validators.check_location`."""
    if location == BUNDLED_STORE:
        return ConnectionTestResult(True, "Images stay in the bundled server's store. Nothing is pushed elsewhere.")
    parts = urlsplit(registry_url(location))
    base, started = f"{parts.scheme}://{parts.netloc}", time.monotonic()
    try:
        destinations = Destinations((base,), tuple(settings.PRIVATE_HOSTS))
        with new_session(TimedAdapter(rule_for=destinations.rule)) as session:
            message = _sign_in(session, destinations, base, user, password)
    except _RegistryRefusedError as refused:
        return refused.result
    except errors.MMSError as error:
        return unreachable(error, "Location")
    note = "Permission to push is first checked when an image is built."
    return ConnectionTestResult(
        True, message + slow_note(time.monotonic() - started), f"{insecure_note(base)} {note}".strip()
    )


def _sign_in(session: requests.Session, destinations: Destinations, base: str, user: str, password: str) -> str:
    """Return the message for a registry that accepts the credentials. Raises _RegistryRefusedError or MMSError."""
    host, url = host_of(base), f"{base}/v2/"
    answer = _get(session, url, "")
    if answer.status == 401:
        answer = _get(session, url, _authorization(session, destinations, base, answer, user, password))
        message = f"{host} accepts {f'the user “{user}”' if user else 'anonymous access'}."
    else:
        message = f"{host} accepts anonymous access, without a password."
    if answer.status == 200:
        return message
    if answer.status == 401:
        raise _RegistryRefusedError(f"{host} rejected this user and password (status 401).", _WRONG_CREDENTIALS)
    if answer.status == 403:
        raise _RegistryRefusedError(
            f"{host} denied access to this user (status 403).", "Ask the person who runs the registry for access."
        )
    if 300 <= answer.status < 400:
        raise _RegistryRefusedError(f"{host} redirects to another address.", "Use the location it redirects to.")
    if answer.status == 404:
        raise _RegistryRefusedError(f"{host} has no /v2/ (status 404).", "The server there isn't a registry.")
    raise _RegistryRefusedError(
        f"{host} responded with status {answer.status}.", "Check that it's a registry and that it works."
    )


def _authorization(
    session: requests.Session,
    destinations: Destinations,
    base: str,
    answer: ServerResponse,
    user: str,
    password: str,
) -> str:
    host = host_of(base)
    kind, _, rest = str(answer.headers.get("WWW-Authenticate", "")).partition(" ")
    if kind.lower() == "bearer":
        return f"Bearer {_token(session, destinations, base, dict(_CHALLENGE.findall(rest)), user, password)}"
    if kind.lower() != "basic":
        raise _RegistryRefusedError(
            f"{host} requires a sign-in method that isn't supported.", "Check that it's a registry."
        )
    if not user:
        raise _RegistryRefusedError(f"{host} requires a user and password.", "Enter both.")
    return basic_auth(user, password)


def _token(
    session: requests.Session,
    destinations: Destinations,
    base: str,
    challenge: dict[str, str],
    user: str,
    password: str,
) -> str:
    host, realm = host_of(base), challenge.get("realm", "")
    try:
        parts = urlsplit(realm)
        is_encrypted = parts.scheme in {"https", urlsplit(base).scheme} and bool(parts.hostname)
    except ValueError:
        is_encrypted = False
    if not is_encrypted:
        raise _RegistryRefusedError(
            f"{host} requests sign-in at an address without TLS.",
            "The registry is misconfigured. No password was sent there.",
        )
    if not destinations.may_refer_to(realm) and not is_forbidden_host(parts.hostname or ""):
        raise _RegistryRefusedError(
            f"{host} requests sign-in at {host_of(realm)}, which isn't public, or isn't encrypted.",
            "No password was sent there. If it belongs to the registry, add it to PRIVATE_HOSTS.",
        )
    query = {"service": challenge.get("service", "")} | (
        {"scope": challenge["scope"]} if challenge.get("scope") else {}
    )
    try:
        answer = _get(session, realm, basic_auth(user, password) if user else "", query)
    except errors.UnreachableError as error:
        forbidden = find_forbidden(error)
        if forbidden is None or not forbidden.is_private:
            raise
        raise _RegistryRefusedError(
            f"{host} requests sign-in at {host_of(realm)}, which is in a private network.",
            "No password was sent there. If it belongs to the registry, add it to PRIVATE_HOSTS.",
        ) from None
    try:
        payload = answer.json()
        token = payload.get("token") or payload.get("access_token") if isinstance(payload, dict) else None
    except wire_values.MalformedPayloadError:
        token = None
    if answer.status in {401, 403}:
        where = "" if host_of(realm) == host else f" at {host_of(realm)}"
        problem = "rejected this user and password" if user else "requires a user and password"
        raise _RegistryRefusedError(
            f"{host} {problem}{where} (status {answer.status}).", _WRONG_CREDENTIALS if user else "Enter both."
        )
    if answer.status != 200 or not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
        raise _RegistryRefusedError(
            f"{host_of(realm)} returned no token (status {answer.status}).", "Check the registry's configuration."
        )
    return token


def _get(
    session: requests.Session, url: str, authorization: str, query: dict[str, str] | None = None
) -> ServerResponse:
    session.auth = Authorization(authorization)
    limits = {"seconds": CALL_SECONDS, "read_timeout": CALL_SECONDS}
    return exchange(
        session, "GET", url, **limits, max_bytes=MAX_RESPONSE_BYTES, url_name="the registry's location", params=query
    )
