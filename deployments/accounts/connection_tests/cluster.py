"""Connection test of a cluster: request its version with the inline credentials of a kubeconfig."""

import contextlib
import os
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from deployments.accounts.connection_tests import (
    CALL_SECONDS,
    ConnectionTestResult,
    insecure_note,
    slow_note,
    unreachable,
)
from deployments.accounts.kubeconfig import BUNDLED_ENGINE, ClusterAccess
from deployments.client import errors, wire_values
from deployments.client.deadlines import TimedAdapter
from deployments.client.http import Authorization, basic_auth, exchange, host_of, new_session

MAX_RESPONSE_BYTES = 256 * 1024


class TrustAdapter(TimedAdapter):
    """HTTP adapter that trusts only the certificate authorities of its TLS context."""

    def __init__(self, context: ssl.SSLContext, name: str):
        """Use `context`. name: the name in the certificate if it differs from the host."""
        self.context = context
        self.name = {"server_hostname": name, "assert_hostname": name} if name else {}
        super().__init__()

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        super().init_poolmanager(*args, **more, ssl_context=self.context)

    def cert_verify(self, *args: Any) -> None:
        """Do nothing: the context has the certificates."""

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        host, _ = super().build_connection_pool_key_attributes(request, verify=True, cert=None)
        return host, {"ssl_context": self.context, **self.name}


def try_cluster(access: ClusterAccess) -> ConnectionTestResult:
    """Request the version of the cluster."""
    if access.server == BUNDLED_ENGINE:
        return ConnectionTestResult(True, "Services run on the bundled server's machine.")
    host, started = host_of(access.server), time.monotonic()
    try:
        context = tls_context(access)
    except (ssl.SSLError, ValueError, OSError):
        return ConnectionTestResult(
            False,
            "The certificates in the kubeconfig can't be used.",
            "Check that the certificate and key belong together.",
        )
    try:
        with new_session(TrustAdapter(context, access.tls_name)) as session:
            session.auth = Authorization(_authorization(access))
            limits = {"seconds": CALL_SECONDS, "read_timeout": CALL_SECONDS}
            answer = exchange(
                session,
                "GET",
                f"{access.server}/version",
                **limits,
                max_bytes=MAX_RESPONSE_BYTES,
                url_name="the server in the kubeconfig",
            )
    except errors.MMSError as error:
        return unreachable(error, "Kubeconfig")
    if answer.status == 401:
        return ConnectionTestResult(
            False,
            f"{host} rejected these credentials (status 401).",
            "The token or certificate is wrong or no longer valid.",
        )
    if answer.status == 403:
        return ConnectionTestResult(
            False,
            f"{host} accepts these credentials but grants no access (status 403).",
            "Ask the person who runs the cluster to grant them a role.",
        )
    if 300 <= answer.status < 400:
        return ConnectionTestResult(
            False, f"{host} redirects to another address.", "Put the address it redirects to into the kubeconfig."
        )
    version = _version(answer)
    if answer.status != 200 or not version:
        return ConnectionTestResult(
            False,
            f"The server at {host} isn't Kubernetes (status {answer.status}).",
            "Check the server in the kubeconfig.",
        )
    advice = (
        "Its certificate isn't checked (insecure-skip-tls-verify), so anyone on the network path can impersonate it."
        if access.skips_tls_verify
        else insecure_note(access.server)
    )
    return ConnectionTestResult(
        True, f"{host} answers: Kubernetes {version}." + slow_note(time.monotonic() - started), advice
    )


def tls_context(access: ClusterAccess) -> ssl.SSLContext:
    """Return a TLS context with the authorities and client certificate of the kubeconfig.

    Raises ssl.SSLError, ValueError or OSError.
    """
    context = ssl.create_default_context(
        cadata=access.ca_certificate.decode("ascii") if access.ca_certificate else None
    )
    if not access.ca_certificate:
        _load_default_authorities(context)
    if access.skips_tls_verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if access.certificate:
        with _in_memory(access.certificate + b"\n" + access.key) as path:
            context.load_cert_chain(path, password="")
    return context


def _load_default_authorities(context: ssl.SSLContext) -> None:
    """Trust the same certificate authorities as all other calls of this site."""
    found = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or DEFAULT_CA_BUNDLE_PATH
    context.load_verify_locations(**{"capath" if Path(found).is_dir() else "cafile": found})


@contextlib.contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """Yield the path of an in-memory file with these bytes: the ssl module only loads certificates from files."""
    descriptor = os.memfd_create("certificate")
    try:
        os.write(descriptor, data)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _authorization(access: ClusterAccess) -> str:
    if access.token:
        return f"Bearer {access.token}"
    if access.user:
        return basic_auth(access.user, access.password)
    return ""


def _version(answer: Any) -> str:
    try:
        payload = answer.json()
    except wire_values.MalformedPayloadError:
        return ""
    return wire_values.text(payload.get("gitVersion") or "", 80) if isinstance(payload, dict) else ""
