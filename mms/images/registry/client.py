"""The distribution protocol: pull and push blobs and manifests, with Basic or Bearer authorization, streamed.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md is the protocol; the token flow is that of
https://distribution.github.io/distribution/spec/auth/token/, which Azure's, GitHub's and Docker's registries use.
"""

import base64
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import requests
from requests.utils import get_environ_proxies
from urllib3.util.retry import Retry

from mms.images.sources.fetch import origin
from mms.images.store.layout import INDEX_TYPE, MANIFEST_TYPE, digest_of
from netguard.addresses import LOOPBACK_HOSTS
from netguard.connect import find_forbidden
from netguard.http import GuardedAdapter

CHUNK_BYTES = 1 << 20
MAX_REDIRECTS = 5
TIMEOUT_SECONDS = (10, 120)  # seconds: to connect, and between two pieces of an answer
MAX_DOCUMENT_BYTES = 4 << 20  # bytes of a manifest, as the specification advises
DOCKER_MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX_TYPE = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFEST_TYPES = ", ".join([MANIFEST_TYPE, INDEX_TYPE, DOCKER_MANIFEST_TYPE, DOCKER_INDEX_TYPE])
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


class RegistryError(Exception):
    """The registry did not do it. The text names registry and reason, for people; it never holds a password."""


def split_location(location: str) -> tuple[str, str]:
    """("https://host:port", "path/before/repositories") of a registry's location, with or without scheme.

    Without one it is https, but http on loopback, where container engines do the same. Raises RegistryError.
    """
    has_scheme = "://" in location
    try:
        parts = urlsplit(location if has_scheme else f"//{location}")
        _ = parts.port
    except ValueError:
        raise RegistryError("The registry's location is no URL that could be read.") from None
    if (has_scheme and parts.scheme not in {"http", "https"}) or not parts.hostname or parts.username or parts.query:
        raise RegistryError(f"{location.split('@')[-1]!r} is no location of a registry, such as example.azurecr.io.")
    loopback = parts.hostname in LOOPBACK_HOSTS
    scheme = parts.scheme if has_scheme else "http" if loopback else "https"
    return f"{scheme}://{parts.netloc}", parts.path.strip("/")


class _Session(requests.Session):
    def resolve_redirects(self, *_: Any, **__: Any) -> Any:
        """Nothing: even where it is not to follow a redirection, requests would read all that comes along with it."""
        return iter(())


def _session(base: str) -> requests.Session:
    """A session with the host's proxy and CA settings, but without its .netrc: those passwords are not ours to send."""
    session = _Session()
    session.trust_env = False
    session.proxies = dict(get_environ_proxies(base))
    session.verify = next(
        (path for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE") if (path := os.environ.get(name))),
        True,
    )
    again = Retry(
        total=3,
        connect=0,
        backoff_factor=0.5,
        status_forcelist=[429, 502, 503, 504],
        allowed_methods=["GET", "HEAD"],
        raise_on_status=False,
    )
    adapter = GuardedAdapter(max_retries=again)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


class Registry:
    """One registry as one user. Raises RegistryError."""

    def __init__(self, location: str, user: str = "", password: str = "") -> None:
        self.base, self.prefix = split_location(location)
        self.host = urlsplit(self.base).netloc
        self._user, self._password = user, password
        self._session = _session(self.base)
        self._authorization: dict[str, str] = {}  # by scope

    def _basic(self) -> str:
        """Return the Authorization header of the user: RFC 7617, in UTF-8."""
        return f"Basic {base64.b64encode(f'{self._user}:{self._password}'.encode()).decode()}"

    # --- push -----------------------------------------------------------------------------------------------------

    def push_blob(self, repository: str, digest: str, path: Path) -> bool:
        """Upload the file `path` unless the registry has it; whether it was sent."""
        scope = f"repository:{repository}:pull,push"
        if self._call("HEAD", f"/v2/{repository}/blobs/{digest}", scope, {200, 404}).status_code == 200:
            return False
        started = self._call("POST", f"/v2/{repository}/blobs/uploads/", scope, {202})
        where = started.headers.get("Location", "")
        where += f"{'&' if '?' in where else '?'}digest={quote(digest)}"
        with path.open("rb") as file:
            self._call("PUT", where, scope, {201, 204}, data=file, headers={"Content-Type": "application/octet-stream"})
        return True

    def push_manifest(self, repository: str, tag: str, path: Path, media_type: str) -> None:
        """Store the manifest in the file `path` as `tag`. Its blobs must be there."""
        scope = f"repository:{repository}:pull,push"
        self._call(
            "PUT",
            f"/v2/{repository}/manifests/{tag}",
            scope,
            {201},
            data=path.read_bytes(),
            headers={"Content-Type": media_type},
        )

    # --- pull -----------------------------------------------------------------------------------------------------

    def manifest(self, repository: str, reference: str) -> dict[str, Any]:
        """The manifest or index called `reference` (tag or digest)."""
        scope = f"repository:{repository}:pull"
        answer = self._call(
            "GET", f"/v2/{repository}/manifests/{reference}", scope, {200}, headers={"Accept": MANIFEST_TYPES}
        )
        data = answer.content
        if reference.startswith("sha256:") and digest_of(data) != reference:
            raise RegistryError(f"{self.host}: {repository} came with another content than {reference}.")
        try:
            return json.loads(data)
        except ValueError:
            raise RegistryError(f"{self.host}: the manifest of {repository} is not JSON.") from None

    def pull_blob(self, repository: str, descriptor: dict[str, Any], target: Path) -> None:
        """Stream a blob into the new file `target`, and make sure that it is the one that was asked for."""
        digest, size = hashlib.sha256(), 0
        path = f"/v2/{repository}/blobs/{descriptor['digest']}"
        with (
            self._call("GET", path, f"repository:{repository}:pull", {200}, stream=True) as answer,
            target.open("xb") as file,
        ):
            for block in answer.iter_content(CHUNK_BYTES):
                size += len(block)
                if size > descriptor["size"]:
                    break
                digest.update(block)
                file.write(block)
        if size != descriptor["size"] or f"sha256:{digest.hexdigest()}" != descriptor["digest"]:
            raise RegistryError(f"{self.host}: {repository} came with another content than {descriptor['digest']}.")

    # --- one call -------------------------------------------------------------------------------------------------

    def _call(self, method: str, path: str, scope: str, expected: set[int], **options: Any) -> requests.Response:
        """Call the registry, authorized when it asks for it. The first 401 says how."""
        url = urljoin(self.base, path)
        answer = self._send(method, url, scope, options)
        if answer.status_code == 401:
            self._authorization[scope] = self._authorize(answer.headers.get("WWW-Authenticate", ""), scope)
            answer = self._send(method, url, scope, options)
        if answer.status_code not in expected:
            raise RegistryError(f"{self.host}: {method} {urlsplit(url).path} was answered {_reason(answer)}")
        return answer

    def _send(self, method: str, url: str, scope: str, options: dict[str, Any]) -> requests.Response:
        if hasattr(options.get("data"), "seek"):
            options["data"].seek(0)
        answer = self._request(method, url, **self._signed(url, scope, options))
        for _ in range(MAX_REDIRECTS if method in {"GET", "HEAD"} else 0):
            if not answer.is_redirect:
                break
            url = urljoin(url, answer.headers["Location"])
            answer = self._request(method, url, **self._signed(url, scope, options))
        return answer

    def _signed(self, url: str, scope: str, options: dict[str, Any]) -> dict[str, Any]:
        """`options` with the credentials, where `url` is the registry's own: an upload may be sent to a storage
        elsewhere, and they are the registry's alone."""
        headers = dict(options.get("headers", {}))
        if scope in self._authorization and origin(urlsplit(url)) == origin(urlsplit(self.base)):
            headers["Authorization"] = self._authorization[scope]
        return {**options, "headers": headers}

    def _request(self, method: str, url: str, *, stream: bool = False, **options: Any) -> requests.Response:
        """Send one request. Unless `stream` is set, the body has been read: at most MAX_DOCUMENT_BYTES."""
        options |= {"timeout": TIMEOUT_SECONDS, "stream": True, "allow_redirects": False}
        try:
            answer = self._session.request(method, url, **options)
            if not stream or answer.status_code != 200:
                answer._content = self._bounded(answer)
            return answer
        except requests.RequestException as error:
            if find_forbidden(error):
                raise RegistryError(
                    f"{self.host} can't be a registry: its address is reserved for the machine's own services."
                ) from error
            raise RegistryError(f"{self.host} is not reached: {_root(error)}") from error

    def _bounded(self, answer: requests.Response) -> bytes:
        with answer:
            parts, size = [], 0
            for part in answer.iter_content(CHUNK_BYTES):
                parts.append(part)
                size += len(part)
                if size > MAX_DOCUMENT_BYTES:
                    raise RegistryError(f"{self.host}: an answer is larger than {MAX_DOCUMENT_BYTES} bytes.")
        return b"".join(parts)

    def _authorize(self, challenge: str, scope: str) -> str:
        """The Authorization header that a 401 asks for."""
        kind, _, rest = challenge.partition(" ")
        if kind.lower() == "bearer":
            return f"Bearer {self._token(dict(_CHALLENGE.findall(rest)), scope)}"
        if kind.lower() == "basic" and self._user:
            return self._basic()
        raise RegistryError(
            f"{self.host} wants a user and password."
            if not self._user
            else f"{self.host} asks for {kind!r} sign-in, which is not known here."
        )

    def _token(self, challenge: dict[str, str], scope: str) -> str:
        realm = urlsplit(challenge.get("realm", ""))
        if realm.scheme not in {"https", urlsplit(self.base).scheme} or not realm.hostname:
            raise RegistryError(f"{self.host} sends its users to sign in at a place that is not protected.")
        headers = {"Authorization": self._basic()} if self._user else {}
        query = {"service": challenge.get("service", ""), "scope": scope}
        answer = self._request("GET", realm.geturl(), params=query, headers=headers)
        try:
            document = answer.json()
            if answer.status_code == 200:
                return str(document.get("token") or document["access_token"])
        except (ValueError, KeyError, AttributeError):
            pass
        raise RegistryError(f"{self.host} gave user {self._user!r} no token: {_reason(answer)}")


def _reason(answer: requests.Response) -> str:
    """Status and the registry's own words: those of its error object, never a foreign server's page."""
    try:
        errors = answer.json()["errors"]
        words = "; ".join(str(error.get("message") or error.get("code"))[:200] for error in errors)
    except (ValueError, KeyError, TypeError, AttributeError, requests.RequestException):
        words = answer.reason[:80] if answer.reason else ""
    return f"{answer.status_code} {words}."


def _root(error: BaseException) -> str:
    """The innermost reason, without the pools and connections that the libraries wrap around it."""
    for inner in (*error.args, getattr(error, "reason", None), error.__cause__, error.__context__):
        if isinstance(inner, BaseException):
            return _root(inner)
    return f"{getattr(error, 'strerror', None) or error}."
