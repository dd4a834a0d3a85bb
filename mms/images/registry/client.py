"""A client for OCI registries: streamed pull and push of blobs and manifests, with Basic or Bearer authentication.

Protocol: https://github.com/opencontainers/distribution-spec/blob/main/spec.md
Token flow: https://distribution.github.io/distribution/spec/auth/token/, used by Azure, GitHub and Docker.
"""

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from netguard.destinations import Destinations
from netguard.http import GuardedAdapter
from netguard.redaction import Redactor

CHUNK_BYTES = 1 << 20
MAX_REDIRECTS = 5
TIMEOUT_SECONDS = (10, 120)  # to connect, and between two parts of a response
MAX_DOCUMENT_BYTES = 4 << 20  # of a manifest, as recommended by the specification
DOCKER_MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX_TYPE = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFEST_TYPES = ", ".join([MANIFEST_TYPE, INDEX_TYPE, DOCKER_MANIFEST_TYPE, DOCKER_INDEX_TYPE])
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')


class RegistryError(Exception):
    """A registry request failed. The message is for people, names registry and reason, and has no password."""


def split_location(location: str) -> tuple[str, str]:
    """Split a registry's location, such as "host:port/team", into ("https://host:port", "team").

    Without a scheme it defaults to https, but to http on loopback, like in container engines. Raises RegistryError.
    """
    has_scheme = "://" in location
    try:
        parts = urlsplit(location if has_scheme else f"//{location}")
        _ = parts.port
    except ValueError:
        raise RegistryError("The registry's location isn't a valid URL. Write it like example.azurecr.io.") from None
    if (has_scheme and parts.scheme not in {"http", "https"}) or not parts.hostname or parts.username or parts.query:
        raise RegistryError(f"{location.split('@')[-1]!r} isn't a registry location. Write it like example.azurecr.io.")
    is_loopback = parts.hostname in LOOPBACK_HOSTS
    scheme = parts.scheme if has_scheme else "http" if is_loopback else "https"
    return f"{scheme}://{parts.netloc}", parts.path.strip("/")


@dataclass(frozen=True)
class _Answer:
    """A response, with its body unless it is streamed."""

    response: requests.Response
    body: bytes = b""

    @property
    def status(self) -> int:
        """Return the HTTP status code."""
        return self.response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        """Return the headers; their names are case-insensitive."""
        return self.response.headers


class _Session(requests.Session):
    def resolve_redirects(self, *_: Any, **__: Any) -> Iterator[Any]:
        """Follow no redirects. requests would read a redirect's entire body even with allow_redirects=False."""
        return iter(())


def _session(base: str, destinations: Destinations) -> requests.Session:
    """Return a session with the host's proxy and CA settings, but without the passwords in its .netrc.

    It only connects to the permitted destinations.
    """
    session = _Session()
    session.trust_env = False
    session.proxies = dict(get_environ_proxies(base))
    session.verify = next(
        (path for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE") if (path := os.environ.get(name))),
        True,
    )
    retry = Retry(
        total=3,
        connect=0,
        backoff_factor=0.5,
        status_forcelist=[429, 502, 503, 504],
        allowed_methods=["GET", "HEAD"],
        raise_on_status=False,
    )
    adapter = GuardedAdapter(max_retries=retry, rule_for=destinations.rule)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


class Registry:
    """A registry, used by one user. All methods raise RegistryError.

    listed: hosts in private networks that the registry may refer to, as for Destinations. Credentials are only sent to
    the registry itself and to a token service that it names under this rule.
    """

    def __init__(self, location: str, user: str = "", password: str = "", listed: Sequence[str] = ()) -> None:
        self.base, self.prefix = split_location(location)
        self.host = urlsplit(self.base).netloc
        self._user, self._password = user, password
        self._redactor = Redactor([password])  # of the secrets that the registry must not echo
        self._destinations = Destinations((self.base,), tuple(listed))
        self._session = _session(self.base, self._destinations)
        self._authorization: dict[str, str] = {}  # by scope

    def _basic(self) -> str:
        """Return the Authorization header of the user: RFC 7617, in UTF-8."""
        return f"Basic {base64.b64encode(f'{self._user}:{self._password}'.encode()).decode()}"

    # --- push -----------------------------------------------------------------------------------------------------

    def push_blob(self, repository: str, digest: str, path: Path) -> bool:
        """Upload the file `path` unless the registry has it. Return True if it was uploaded."""
        scope = f"repository:{repository}:pull,push"
        if self._call("HEAD", f"/v2/{repository}/blobs/{digest}", scope, {200, 404}).status == 200:
            return False
        started = self._call("POST", f"/v2/{repository}/blobs/uploads/", scope, {202})
        upload_url = started.headers.get("Location", "")
        upload_url += f"{'&' if '?' in upload_url else '?'}digest={quote(digest)}"
        with path.open("rb") as file:
            headers = {"Content-Type": "application/octet-stream"}
            self._call("PUT", upload_url, scope, {201, 204}, data=file, headers=headers)
        return True

    def push_manifest(self, repository: str, tag: str, path: Path, media_type: str) -> None:
        """Upload the manifest in the file `path` as `tag`. Its blobs must have been uploaded."""
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
        """Return the manifest or index `reference`, a tag or digest."""
        scope = f"repository:{repository}:pull"
        answer = self._call(
            "GET", f"/v2/{repository}/manifests/{reference}", scope, {200}, headers={"Accept": MANIFEST_TYPES}
        )
        if reference.startswith("sha256:") and digest_of(answer.body) != reference:
            raise RegistryError(self._mismatch(repository, reference))
        try:
            return dict(json.loads(answer.body))
        except (TypeError, ValueError):
            raise RegistryError(
                f"{self.host}: the manifest of {repository} isn't valid JSON. Check that this address is a registry."
            ) from None

    def pull_blob(self, repository: str, descriptor: dict[str, Any], target: Path) -> None:
        """Stream a blob to the new file `target` and verify its digest and size."""
        digest, size = hashlib.sha256(), 0
        path = f"/v2/{repository}/blobs/{descriptor['digest']}"
        with (
            self._call("GET", path, f"repository:{repository}:pull", {200}, stream=True).response as response,
            target.open("xb") as file,
        ):
            for block in response.iter_content(CHUNK_BYTES):
                size += len(block)
                if size > descriptor["size"]:
                    break
                digest.update(block)
                file.write(block)
        if size != descriptor["size"] or f"sha256:{digest.hexdigest()}" != descriptor["digest"]:
            raise RegistryError(self._mismatch(repository, descriptor["digest"]))

    def _mismatch(self, repository: str, digest: str) -> str:
        reason = f"{self.host}: the content of {repository} doesn't match the digest {digest}."
        return f"{reason} Push the image again, then retry."

    # --- requests -------------------------------------------------------------------------------------------------

    def _call(self, method: str, path: str, scope: str, expected: set[int], **options: Any) -> _Answer:
        """Send a request. If the response is 401, authenticate as it requires and send the request again."""
        url = urljoin(self.base, path)
        answer = self._send(method, url, scope, options)
        if answer.status == 401:
            self._authorization[scope] = self._authorize(answer.headers.get("WWW-Authenticate", ""), scope)
            answer = self._send(method, url, scope, options)
        if answer.status not in expected:
            failure = f"{self.host} responded to {method} {urlsplit(url).path} with {self._reason(answer)}"
            raise RegistryError(f"{failure} Check the registry and the user's permissions, then retry.")
        return answer

    def _send(self, method: str, url: str, scope: str, options: dict[str, Any]) -> _Answer:
        """Send a request and follow redirects of reading requests."""
        if hasattr(options.get("data"), "seek"):
            options["data"].seek(0)
        answer = self._request(method, url, **self._with_credentials(url, scope, options))
        for _ in range(MAX_REDIRECTS if method in {"GET", "HEAD"} else 0):
            if not answer.response.is_redirect:
                break
            url = urljoin(url, answer.headers["Location"])
            answer = self._request(method, url, **self._with_credentials(url, scope, options))
        return answer

    def _with_credentials(self, url: str, scope: str, options: dict[str, Any]) -> dict[str, Any]:
        """Return `options` with the credentials, if `url` is on the registry's own host.

        Uploads and downloads may be redirected to storage on another host, which must not receive them.
        """
        headers = dict(options.get("headers", {}))
        if scope in self._authorization and origin(urlsplit(url)) == origin(urlsplit(self.base)):
            headers["Authorization"] = self._authorization[scope]
        return {**options, "headers": headers}

    def _request(self, method: str, url: str, *, stream: bool = False, **options: Any) -> _Answer:
        """Send one request. Without `stream`, also read the body, up to MAX_DOCUMENT_BYTES."""
        if not self._destinations.may_refer_to(url):
            raise RegistryError(self._not_permitted(url))
        options |= {"timeout": TIMEOUT_SECONDS, "stream": True, "allow_redirects": False}
        try:
            response = self._session.request(method, url, **options)
            is_streamed = stream and response.status_code == 200
            return _Answer(response) if is_streamed else _Answer(response, self._read_bounded(response))
        except requests.RequestException as error:
            forbidden = find_forbidden(error)
            if forbidden and forbidden.is_private:
                raise RegistryError(self._not_permitted(url)) from error
            if forbidden:
                raise RegistryError(
                    f"{self.host} can't be a registry: its address is reserved for the machine's own services."
                ) from error
            failure = f"Couldn't reach {self.host}: {self._redactor.text(_root_cause(error))}"
            raise RegistryError(f"{failure} Check the address and that the registry is running, then retry.") from error

    def _not_permitted(self, url: str) -> str:
        """Return why a host that the registry refers to isn't called."""
        target = self._redactor.text(urlsplit(url).netloc.rpartition("@")[2])[:200]
        failure = f"{self.host} refers to {target}, which isn't public, or isn't encrypted. Nothing was sent there."
        return f"{failure} If it belongs to the registry, add it to PRIVATE_HOSTS."

    def _reason(self, answer: _Answer) -> str:
        """Return the status and the reason that the registry gave, without secrets."""
        return self._redactor.text(_reason(answer))[:1000]

    def _read_bounded(self, response: requests.Response) -> bytes:
        with response:
            parts, size = [], 0
            for part in response.iter_content(CHUNK_BYTES):
                parts.append(part)
                size += len(part)
                if size > MAX_DOCUMENT_BYTES:
                    failure = f"{self.host} sent a response larger than {MAX_DOCUMENT_BYTES} bytes."
                    raise RegistryError(f"{failure} Check that this address is a registry.")
        return b"".join(parts)

    def _authorize(self, challenge: str, scope: str) -> str:
        """Return the Authorization header that a 401 response requires."""
        kind, _, rest = challenge.partition(" ")
        if kind.lower() == "bearer":
            return f"Bearer {self._token(dict(_CHALLENGE.findall(rest)), scope)}"
        if kind.lower() == "basic" and self._user:
            return self._basic()
        if not self._user:
            raise RegistryError(f"{self.host} requires a user and password. Enter them in the registry's settings.")
        kind = self._redactor.text(kind)[:40]
        failure = f"{self.host} requires {kind!r} authentication, which isn't supported."
        raise RegistryError(f"{failure} Use a registry with Basic or Bearer authentication.")

    def _token(self, challenge: dict[str, str], scope: str) -> str:
        """Return a token from the token service named in a 401 response."""
        realm = urlsplit(challenge.get("realm", ""))
        if realm.scheme not in {"https", urlsplit(self.base).scheme} or not realm.hostname:
            raise RegistryError(
                f"{self.host} has a token service at an unprotected address. Use the registry's https address."
            )
        headers = {"Authorization": self._basic()} if self._user else {}
        query = {"service": challenge.get("service", ""), "scope": scope}
        answer = self._request("GET", realm.geturl(), params=query, headers=headers)
        try:
            document = json.loads(answer.body)
            if answer.status == 200:
                token = str(document.get("token") or document["access_token"])
                self._redactor = self._redactor.including([token])
                return token
        except (ValueError, KeyError, AttributeError):
            pass
        failure = f"{self.host} refused to sign in user {self._user!r}: {self._reason(answer)}"
        raise RegistryError(f"{failure} Check the user and password in the registry's settings.")


def _reason(answer: _Answer) -> str:
    """Return the status and the message of the registry's error object, never a page of another server."""
    try:
        errors = json.loads(answer.body)["errors"]
        message = "; ".join(str(error.get("message") or error.get("code")) for error in errors)
    except (ValueError, KeyError, TypeError, AttributeError):
        message = answer.response.reason[:80] if answer.response.reason else ""
    return f"{answer.status} {message}."


def _root_cause(error: BaseException) -> str:
    """Return the innermost cause, without the libraries' pools and connections around it."""
    for inner in (*error.args, getattr(error, "reason", None), error.__cause__, error.__context__):
        if isinstance(inner, BaseException):
            return _root_cause(inner)
    return f"{getattr(error, 'strerror', None) or error}."
