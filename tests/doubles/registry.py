"""A small registry on loopback: the distribution protocol over HTTP, with digest checks and authentication.

It shares no code with the client under test. `scheme` is "none", "basic" or "bearer" (with a token service at /token).
`requests` lists (method, path, Authorization) of every call.
"""

import base64
import contextlib
import hashlib
import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

USER, PASSWORD = "acruser", "s3cret-of-the-registry"


class RegistryDouble:
    def __init__(self, location: str, scheme: str) -> None:
        self.location, self.scheme = location, scheme
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}  # (repository, tag or digest): (type, data)
        self.requests: list[tuple[str, str, str]] = []
        self.tokens: dict[str, str] = {}  # token: scope
        self.realm = f"http://{location}/token"
        self.upload_location = ""  # URL for uploads, if not this server
        self.redirect_blobs_to = ""
        self.failures: list[int] = []  # statuses of the next responses, without an effect
        self.before_upload: Callable[[], None] = lambda: None  # called before a blob is accepted; may delay it

    def add_image(
        self, repository: str, tag: str, layers: list[bytes], config: dict[str, Any], docker: bool = False
    ) -> str:
        """Add an image. Return its digest."""
        family = "vnd.docker.distribution.manifest.v2" if docker else "vnd.oci.image.manifest.v1"
        layer_type = "vnd.docker.image.rootfs.diff.tar.gzip" if docker else "vnd.oci.image.layer.v1.tar+gzip"
        document = {
            "schemaVersion": 2,
            "mediaType": f"application/{family}+json",
            "config": self.add_blob(json.dumps(config).encode(), "application/vnd.oci.image.config.v1+json"),
            "layers": [self.add_blob(layer, f"application/{layer_type}") for layer in layers],
        }
        return self.add_manifest(repository, tag, document)

    def add_manifest(self, repository: str, tag: str, document: dict[str, Any]) -> str:
        data = json.dumps(document).encode()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.manifests[repository, tag] = self.manifests[repository, digest] = (document["mediaType"], data)
        return digest

    def add_blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data)}


@contextlib.contextmanager
def running_registry(scheme: str = "none") -> Iterator[RegistryDouble]:
    class Handler(_Handler):
        registry: RegistryDouble

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    Handler.registry = RegistryDouble(f"127.0.0.1:{server.server_address[1]}", scheme)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield Handler.registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    registry: RegistryDouble
    protocol_version = "HTTP/1.1"

    def _dispatch(self) -> None:
        registry, url = self.registry, urlsplit(self.path)
        registry.requests.append((self.command, self.path, self.headers.get("Authorization", "")))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if registry.failures:
            return self._answer(registry.failures.pop(0), b"<html>proxy trouble</html>")
        if url.path == "/token":
            return self._token(parse_qs(url.query))
        if not self._may():
            return None
        for pattern, methods in ROUTES:
            match = re.fullmatch(pattern, url.path)
            if match and self.command in methods:
                return getattr(self, methods[self.command])(body, parse_qs(url.query), *match.groups())
        return self._answer(404)

    do_GET = do_HEAD = do_POST = do_PUT = _dispatch

    # --- sign-in --------------------------------------------------------------------------------------------------

    def _may(self) -> bool:
        header = self.headers.get("Authorization", "")
        if self.registry.scheme == "none" or (self.registry.scheme == "basic" and header == basic()):
            return True
        scope = self.registry.tokens.get(header.removeprefix("Bearer "), "")
        if scope and self.path == "/v2/":
            return True
        if scope and f"/v2/{scope.split(':')[1]}/" in self.path:
            wanted = "pull" if self.command in {"GET", "HEAD"} else "push"
            if wanted in scope.rpartition(":")[2].split(","):
                return True
        bearer = f'Bearer realm="{self.registry.realm}",service="registry.test",scope="repository:x:pull"'
        self._answer(
            401,
            errors("UNAUTHORIZED"),
            {"WWW-Authenticate": bearer if self.registry.scheme == "bearer" else 'Basic realm="r"'},
        )
        return False

    def _token(self, query: dict[str, list[str]]) -> None:
        if self.headers.get("Authorization") != basic():
            return self._answer(401, errors("wrong user or password"))
        token = uuid.uuid4().hex
        self.registry.tokens[token] = query.get("scope", [""])[0]
        return self._answer(200, json.dumps({"access_token": token}).encode())

    # --- blobs and manifests --------------------------------------------------------------------------------------

    def hello(self, _: bytes, __: Any) -> None:
        self._answer(200, b"{}")

    def blob(self, _: bytes, __: Any, repository: str, digest: str) -> None:
        if digest not in self.registry.blobs:
            return self._answer(404, errors("BLOB_UNKNOWN"))
        if self.command == "GET" and self.registry.redirect_blobs_to:
            return self._answer(307, b"", {"Location": f"{self.registry.redirect_blobs_to}/{digest}"})
        return self._answer(200, self.registry.blobs[digest])

    def start(self, _: bytes, __: Any, repository: str) -> None:
        place = self.registry.upload_location or f"/v2/{repository}/blobs/uploads/{uuid.uuid4()}"
        self._answer(202, b"", {"Location": f"{place}?state=abc"})

    def upload(self, body: bytes, query: dict[str, list[str]], repository: str) -> None:
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if query.get("state") != ["abc"] or query.get("digest") != [digest]:
            return self._answer(400, errors("DIGEST_INVALID"))
        self.registry.before_upload()
        self.registry.blobs[digest] = body
        return self._answer(201)

    def manifest(self, _: bytes, __: Any, repository: str, reference: str) -> None:
        if (repository, reference) not in self.registry.manifests:
            return self._answer(404, errors("MANIFEST_UNKNOWN"))
        media_type, data = self.registry.manifests[repository, reference]
        accepted = {part.strip() for part in self.headers.get("Accept", "").split(",")}
        return self._answer(200 if media_type in accepted else 406, data, {"Content-Type": media_type})

    def put_manifest(self, body: bytes, _: Any, repository: str, reference: str) -> None:
        document = json.loads(body)
        needed = {item["digest"] for item in [*document["layers"], document["config"]]}
        if needed - self.registry.blobs.keys() or document["mediaType"] != self.headers["Content-Type"]:
            return self._answer(400, errors("MANIFEST_BLOB_UNKNOWN"))
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        for name in (reference, digest):
            self.registry.manifests[repository, name] = (document["mediaType"], body)
        return self._answer(201)

    def _answer(self, status: int, data: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


ROUTES = [
    (r"/v2/", {"GET": "hello"}),
    (r"/v2/(.+)/blobs/uploads/", {"POST": "start"}),
    (r"/v2/(.+)/blobs/uploads/[^/]+", {"PUT": "upload"}),
    (r"/v2/(.+)/blobs/(sha256:[0-9a-f]+)", {"GET": "blob", "HEAD": "blob"}),
    (r"/v2/(.+)/manifests/([^/]+)", {"GET": "manifest", "HEAD": "manifest", "PUT": "put_manifest"}),
]


def basic() -> str:
    return f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"


def errors(message: str) -> bytes:
    return json.dumps({"errors": [{"code": "X", "message": message}]}).encode()
