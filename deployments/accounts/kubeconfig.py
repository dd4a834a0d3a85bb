"""Kubeconfigs: parsed, never executed. Anything but addresses and inline credentials is refused.

A kubeconfig can name programs to run and files to read
(https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/), with the rights of the process that uses it. All users
and clusters are checked, not only the current ones, because the server receives the whole text.
"""

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any

from deployments.client.urls import web_address
from deployments.models.validators import NEVER_CALLED
from netguard import safe_yaml
from netguard.addresses import is_forbidden_host

MAX_BYTES = 256 * 1024
BUNDLED_ENGINE = "process://local"  # the bundled server's engine, which runs services as local processes
PROGRAMS = {"exec": "a program to run", "auth-provider": "a plug-in to run"}
FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")


class InvalidKubeconfigError(Exception):
    """The kubeconfig can't be used. The message says why and contains no secrets."""


@dataclass(frozen=True)
class ClusterAccess:
    """Address and credentials of the current context. Certificates and keys are PEM."""

    server: str
    ca_certificate: bytes = b""
    token: str = field(default="", repr=False)
    user: str = ""
    password: str = field(default="", repr=False)
    certificate: bytes = field(default=b"", repr=False)
    key: bytes = field(default=b"", repr=False)
    skips_tls_verify: bool = False  # insecure-skip-tls-verify
    tls_name: str = ""


def parse(text: str) -> ClusterAccess:
    """Return the access that the kubeconfig grants. Raises InvalidKubeconfigError."""
    document = _load(text)
    users, clusters = _named(document, "users", "user"), _named(document, "clusters", "cluster")
    for name, part in [*users, *clusters]:
        _refuse_programs_and_files(name, part)
    contexts = _named(document, "contexts", "context")
    context = _current(document, contexts)
    cluster = _find(clusters, context.get("cluster"), "cluster") if context else _only(clusters, "cluster")
    user = _find(users, context.get("user"), "user") if context.get("user") else _only(users, "user", {})
    for _, other in clusters:
        _check_server(other)
    return _access(cluster, user)


def _load(text: str) -> dict[str, Any]:
    if len(text.encode(errors="surrogatepass")) > MAX_BYTES:
        raise InvalidKubeconfigError(f"This is too large for a kubeconfig. The maximum is {MAX_BYTES // 1024} kB.")
    try:
        document = safe_yaml.load(text)
    except safe_yaml.UnsupportedYamlError as reason:
        raise InvalidKubeconfigError(f"The kubeconfig {reason}.") from None
    if not isinstance(document, dict) or "clusters" not in document:
        raise InvalidKubeconfigError("This isn't a kubeconfig: it has no “clusters”. Paste the whole file.")
    return document


def _named(document: dict[str, Any], list_name: str, entry_name: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the named entries of a list in the document. Raises InvalidKubeconfigError."""
    entries = document.get(list_name) or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InvalidKubeconfigError(f"“{list_name}” must be a list of entries that each have a name.")
    found: list[tuple[str, dict[str, Any]]] = []
    for entry in entries:
        part = entry.get(entry_name) or {}
        if not isinstance(part, dict):
            raise InvalidKubeconfigError(f"The “{entry_name}” of an entry of “{list_name}” must be a mapping.")
        name = str(entry.get("name", ""))[:80]
        if any(name == other for other, _ in found):
            raise InvalidKubeconfigError(f"“{list_name}” has two entries named “{name}”. Remove one of them.")
        found.append((name, part))
    return found


def _refuse_programs_and_files(name: str, part: dict[str, Any]) -> None:
    for key, what in PROGRAMS.items():
        if key in part:
            raise InvalidKubeconfigError(
                f"“{name}” names {what} (“{key}”), which the dashboard never runs. "
                "Create a service account in the cluster and put its token inline."
            )
    for key in FILES:
        if key in part:
            inline = "token" if key == "tokenFile" else f"{key}-data"
            raise InvalidKubeconfigError(
                f"“{name}” names a file (“{key}”), which the dashboard can't read. "
                f"Put its content inline as “{inline}”. To do so, run “kubectl config view --flatten --minify --raw”."
            )
    if "proxy-url" in part:
        raise InvalidKubeconfigError(f"“{name}” names a proxy (“proxy-url”), which isn't supported. Remove it.")


def _current(document: dict[str, Any], contexts: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    name = document.get("current-context")
    if not name:
        if len(contexts) > 1:
            raise InvalidKubeconfigError("It has several contexts and no “current-context”. Set the one to use.")
        return contexts[0][1] if contexts else {}
    return _find(contexts, name, "context")


def _find(entries: list[tuple[str, dict[str, Any]]], name: Any, noun: str) -> dict[str, Any]:
    for known, part in entries:
        if known == str(name)[:80]:
            return part
    raise InvalidKubeconfigError(f"It has no {noun} named “{str(name)[:80]}”.")


def _only(
    entries: list[tuple[str, dict[str, Any]]], noun: str, otherwise: dict[str, Any] | None = None
) -> dict[str, Any]:
    if len(entries) == 1:
        return entries[0][1]
    if not entries and otherwise is not None:
        return otherwise
    raise InvalidKubeconfigError(f"It has {len(entries)} entries for a {noun} and no context that selects one.")


def _check_server(cluster: dict[str, Any]) -> None:
    server = cluster.get("server")
    if server == BUNDLED_ENGINE:
        return
    parts = web_address(server if isinstance(server, str) else "")
    if parts is None or "@" in parts.netloc or not str(server).isprintable() or " " in str(server):
        raise InvalidKubeconfigError("The “server” of a cluster must be a URL that starts with https://.")
    if is_forbidden_host(parts.hostname or ""):
        raise InvalidKubeconfigError(f"The “server” of a cluster: {NEVER_CALLED}")


def _access(cluster: dict[str, Any], user: dict[str, Any]) -> ClusterAccess:
    return ClusterAccess(
        server=str(cluster["server"]).rstrip("/"),
        ca_certificate=_pem(cluster, "certificate-authority-data"),
        token=_text(user, "token"),
        user=_text(user, "username"),
        password=_text(user, "password"),
        certificate=_pem(user, "client-certificate-data"),
        key=_pem(user, "client-key-data"),
        skips_tls_verify=cluster.get("insecure-skip-tls-verify") is True,
        tls_name=_text(cluster, "tls-server-name"),
    )


def _text(part: dict[str, Any], key: str) -> str:
    value = part.get(key) or ""
    if not isinstance(value, str):
        raise InvalidKubeconfigError(f"“{key}” must be a string. Put it in quotes.")
    return value.strip()


def _pem(part: dict[str, Any], key: str) -> bytes:
    """Return a certificate or key, which is stored in base64."""
    value = _text(part, key)
    try:
        data = base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidKubeconfigError(f"“{key}” is not base64.") from None
    if data and not data.lstrip().startswith(b"-----BEGIN "):
        raise InvalidKubeconfigError(f"“{key}” contains no PEM data, which starts with -----BEGIN.")
    return data
