"""Push and pull with a registry on loopback, with each authentication scheme, by the client and by builds."""

import contextlib
import gzip
import hashlib
import io
import json
import shutil
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from mms.images.registry.base_image import Reference, parse_reference
from mms.images.registry.client import Registry, RegistryError, split_location
from mms.images.runtimes import HOST_PLATFORM, HOST_PYTHON
from mms.images.store.layout import MANIFEST_TYPE
from tests.builder import Builder, Built
from tests.doubles.files import running_files
from tests.doubles.registry import PASSWORD, USER, RegistryDouble, basic, running_registry
from tests.ports import free_port
from tests.support.spellings import spellings

ARCHITECTURE = HOST_PLATFORM.partition("/")[2]


@pytest.fixture(params=["none", "basic", "bearer"])
def registry(request: pytest.FixtureRequest) -> Iterator[RegistryDouble]:
    with running_registry(request.param) as double:
        yield double


@pytest.fixture
def bearer() -> Iterator[RegistryDouble]:
    with running_registry("bearer") as double:
        yield double


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    with running_files() as files:
        yield Builder(tmp_path_factory.mktemp("builder"), files)


def client(double: RegistryDouble, password: str = PASSWORD) -> Registry:
    return Registry(double.location, USER, password)


def blob(folder: Path, data: bytes) -> tuple[str, Path]:
    path = folder / "blob"
    path.write_bytes(data)
    return f"sha256:{hashlib.sha256(data).hexdigest()}", path


def credentials(double: RegistryDouble, prefix: str = "") -> dict[str, str]:
    return {"location": double.location + prefix, "user": USER, "password": PASSWORD}


# --- the protocol -------------------------------------------------------------------------------------------------


def test_a_blob_is_uploaded_once_and_downloaded_unchanged(registry: RegistryDouble, tmp_path: Path) -> None:
    digest, path = blob(tmp_path, b"a layer" * 100_000)
    assert client(registry).push_blob("team/iris", digest, path) is True
    assert client(registry).push_blob("team/iris", digest, path) is False
    client(registry).pull_blob("team/iris", {"digest": digest, "size": path.stat().st_size}, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == path.read_bytes()


def test_a_manifest_keeps_its_bytes(registry: RegistryDouble, tmp_path: Path) -> None:
    config = registry.add_blob(b"{}", "application/vnd.oci.image.config.v1+json")
    path = tmp_path / "manifest"
    path.write_text(json.dumps({"mediaType": MANIFEST_TYPE, "layers": [], "config": config}))
    client(registry).push_manifest("team/iris", "v1", path, MANIFEST_TYPE)
    assert registry.manifests["team/iris", "v1"] == (MANIFEST_TYPE, path.read_bytes())
    assert client(registry).manifest("team/iris", "v1") == json.loads(path.read_text())


@pytest.mark.parametrize("scheme", ["basic", "bearer"])
def test_a_wrong_password_is_reported_without_the_password(scheme: str, tmp_path: Path) -> None:
    with running_registry(scheme) as double, pytest.raises(RegistryError) as caught:
        client(double, "wr0ng-one").push_blob("team/iris", *blob(tmp_path, b"x"))
    assert "401" in str(caught.value)
    assert "wr0ng-one" not in str(caught.value)


def test_the_password_goes_to_the_token_service_and_the_token_to_the_registry(
    bearer: RegistryDouble, tmp_path: Path
) -> None:
    client(bearer).push_blob("team/iris", *blob(tmp_path, b"x"))
    sent = {path.partition("?")[0].split("/")[1]: header for _, path, header in bearer.requests if header}
    assert sent["token"] == basic()
    assert sent["v2"].removeprefix("Bearer ") in bearer.tokens
    assert set(bearer.tokens.values()) == {"repository:team/iris:pull,push"}


@pytest.mark.parametrize("realm", ["http://169.254.169.254/token", "ftp://127.0.0.1/token", "", "/token", "http:///"])
def test_unprotected_token_services_are_rejected(bearer: RegistryDouble, tmp_path: Path, realm: str) -> None:
    bearer.realm = realm
    with pytest.raises(RegistryError):
        client(bearer).push_blob("team/iris", *blob(tmp_path, b"x"))


def test_a_registry_can_only_refer_to_public_and_listed_hosts(tmp_path: Path) -> None:
    """Another port of this machine is another host, however it is spelled."""
    with running_registry("basic") as double, running_registry("none") as other:
        digest, path = blob(tmp_path, b"x")
        port = other.location.partition(":")[2]
        for host in ("127.0.0.1", "localhost", "[::1]", "127.1", "2130706433", "0x7f000001", "[::ffff:127.0.0.1]"):
            for scheme in ("http", "https"):
                double.upload_location = f"{scheme}://{host}:{port}/v2/team/iris/blobs/uploads/1"
                with pytest.raises(RegistryError, match=f"refers to .*{port}.*PRIVATE_HOSTS"):
                    client(double).push_blob("team/iris", digest, path)
                double.blobs[digest] = b"x"
                double.redirect_blobs_to = f"{scheme}://{host}:{port}/v2/team/iris/blobs"
                with pytest.raises(RegistryError, match="PRIVATE_HOSTS"):
                    client(double).pull_blob("team/iris", {"digest": digest, "size": 1}, tmp_path / "back")
                double.blobs.clear()
                (tmp_path / "back").unlink(missing_ok=True)
        assert not other.requests


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_token_service_on_another_host_gets_no_password_unless_it_is_listed(tmp_path: Path, host: str) -> None:
    with running_registry("bearer") as double, running_registry("bearer") as other:
        other.tokens = double.tokens
        port = other.location.partition(":")[2]
        double.realm = f"http://{host}:{port}/token"
        with pytest.raises(RegistryError, match="refers to"):
            client(double).push_blob("team/iris", *blob(tmp_path, b"x"))
        assert not other.requests
        listed = Registry(double.location, USER, PASSWORD, (f"127.0.0.1:{port}",))
        assert listed.push_blob("team/iris", *blob(tmp_path, b"x"))
        assert basic() in {header for _, _, header in other.requests}


def test_an_unencrypted_public_token_service_gets_no_password(bearer: RegistryDouble, tmp_path: Path) -> None:
    bearer.realm = "http://1.1.1.1/token"
    with pytest.raises(RegistryError, match=r"isn't encrypted\. Nothing was sent there"):
        client(bearer).push_blob("team/iris", *blob(tmp_path, b"x"))


def test_no_secret_that_a_registry_echoes_is_in_an_error(tmp_path: Path) -> None:
    password = 'r€g"istry\\pass/<1>'
    for text in spellings(password, USER).values():
        reply = json.dumps({"errors": [{"message": f"denied {text}"}]}).encode()
        with answering(reply) as location, pytest.raises(RegistryError) as error:
            Registry(location, USER, password).push_blob("team/iris", *blob(tmp_path, b"x"))
        assert "…" in str(error.value)
        assert text not in str(error.value)


@contextlib.contextmanager
def answering(body: bytes) -> Iterator[str]:
    """Run a registry that answers every request with status 400 and this body. Yield its location."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(400)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_credentials_are_not_sent_to_redirect_targets(tmp_path: Path) -> None:
    with running_registry("basic") as double, running_registry("none") as storage:
        digest, path = blob(tmp_path, b"x")
        double.upload_location = f"http://{storage.location}/v2/team/iris/blobs/uploads/1"
        listed = Registry(double.location, USER, PASSWORD, (storage.location,))
        listed.push_blob("team/iris", digest, path)
        double.blobs[digest] = b"x"
        double.redirect_blobs_to = f"http://{storage.location}/v2/team/iris/blobs"
        listed.pull_blob("team/iris", {"digest": digest, "size": 1}, tmp_path / "back")
        assert [(method, header) for method, _, header in storage.requests] == [("PUT", ""), ("GET", "")]
        assert basic() in {header for _, _, header in double.requests}


def test_passwords_of_the_hosts_netrc_are_not_sent(
    registry: RegistryDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login host password of-the-host\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(RegistryError):
        Registry(registry.location).manifest("team/iris", "none")
    assert {header for _, _, header in registry.requests} <= {""}


def test_content_that_does_not_match_its_digest_is_rejected(registry: RegistryDouble, tmp_path: Path) -> None:
    digest, _ = blob(tmp_path, b"right")
    for evil in (b"wrong", b"righ", b"right and more"):
        registry.blobs[digest] = evil
        with pytest.raises(RegistryError, match="doesn't match the digest"):
            client(registry).pull_blob("team/iris", {"digest": digest, "size": 5}, tmp_path / f"back {evil!r}")
    registry.manifests["team/iris", digest] = (MANIFEST_TYPE, b'{"other": 1}')
    with pytest.raises(RegistryError, match="doesn't match the digest"):
        client(registry).manifest("team/iris", digest)


def test_temporary_errors_are_retried_when_reading_and_reported_when_writing(
    registry: RegistryDouble, tmp_path: Path
) -> None:
    registry.add_manifest("team/iris", "v1", {"mediaType": MANIFEST_TYPE})
    registry.failures = [503, 502]
    assert client(registry).manifest("team/iris", "v1") == {"mediaType": MANIFEST_TYPE}
    signed_in = client(registry)
    signed_in.push_blob("team/iris", *blob(tmp_path, b"x"))
    digest, path = blob(tmp_path, b"y")
    registry.failures = [404, 500]
    with pytest.raises(RegistryError, match=r"POST /v2/team/iris/blobs/uploads/ with 500") as caught:
        signed_in.push_blob("team/iris", digest, path)
    assert "html" not in str(caught.value)


def test_an_unreachable_registry_is_reported() -> None:
    with pytest.raises(RegistryError, match=r"^Couldn't reach 127\.0\.0\.1:1: Connection refused\. Check the address "):
        Registry("127.0.0.1:1").manifest("team/iris", "v1")


def test_a_registry_is_not_looked_for_among_the_machines_own_services() -> None:
    with pytest.raises(RegistryError, match="can't be a registry: its address is reserved"):
        Registry("http://169.254.169.254").manifest("team/iris", "v1")


@pytest.mark.parametrize(
    ("location", "found"),
    [
        ("example.azurecr.io", ("https://example.azurecr.io", "")),
        ("https://example.azurecr.io/", ("https://example.azurecr.io", "")),
        ("example.org:5000/team/models", ("https://example.org:5000", "team/models")),
        ("127.0.0.1:5000", ("http://127.0.0.1:5000", "")),
        ("localhost:5000/team", ("http://localhost:5000", "team")),
        ("http://registry.internal", ("http://registry.internal", "")),
        ("https://127.0.0.1:5000", ("https://127.0.0.1:5000", "")),
    ],
)
def test_locations_are_parsed(location: str, found: tuple[str, str]) -> None:
    assert split_location(location) == found


@pytest.mark.parametrize(
    "location", ["", "oci://elsewhere", "ftp://x", "https://", "https://user:s3cret@host", "host?x", "http://[::1"]
)
def test_invalid_locations_are_rejected(location: str) -> None:
    with pytest.raises(RegistryError) as caught:
        split_location(location)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("python:3.11-slim", Reference("registry-1.docker.io", "library/python", "3.11-slim")),
        ("team/python", Reference("registry-1.docker.io", "team/python", "latest")),
        ("registry.example/python:3.11", Reference("registry.example", "python", "3.11")),
        ("http://127.0.0.1:5000/a/b:1", Reference("http://127.0.0.1:5000", "a/b", "1")),
        (f"localhost/x:1@sha256:{'0' * 64}", Reference("localhost", "x", f"sha256:{'0' * 64}")),
    ],
)
def test_image_references_are_parsed(text: str, found: Reference) -> None:
    assert parse_reference(text) == found


# --- builds -------------------------------------------------------------------------------------------------------


def test_a_build_pushes_the_image_and_the_digest_agrees(registry: RegistryDouble, builder: Builder) -> None:
    built = builder.build(registry=credentials(registry, "/team"), repository="local/iris", tag="v1")
    _, data = registry.manifests["team/local/iris", "v1"]
    assert f"sha256:{hashlib.sha256(data).hexdigest()}" == built.digest
    assert built.result["reference"] == f"{registry.location}/team/local/iris@{built.digest}"
    assert {layer["digest"] for layer in built.result["layers"]} <= registry.blobs.keys()
    assert PASSWORD not in built.log


def test_a_second_push_sends_only_the_manifest(registry: RegistryDouble, builder: Builder) -> None:
    builder.build(registry=credentials(registry))
    registry.requests.clear()
    builder.build(registry=credentials(registry))
    assert [path.split("/")[-2] for method, path, _ in registry.requests if method in {"PUT", "POST"}] == ["manifests"]


def test_a_failed_push_reports_the_reason(bearer: RegistryDouble, builder: Builder) -> None:
    built = builder.build(registry={**credentials(bearer), "password": "wr0ng-one"})
    assert (built.error["code"], built.error["step"]) == ("RegistryFailed", "image")
    assert "refused to sign in user 'acruser': 401 wrong user or password." in built.error["message"]
    assert "wr0ng-one" not in built.log + json.dumps(built.result)


def layer_of(files: dict[str, bytes]) -> tuple[bytes, str]:
    """Return (compressed layer, diff id)."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return gzip.compress(raw.getvalue()), f"sha256:{hashlib.sha256(raw.getvalue()).hexdigest()}"


def add_base(
    double: RegistryDouble, *, python: str = HOST_PYTHON + ".9", docker: bool = False, architecture: str = ARCHITECTURE
) -> str:
    data, diff_id = layer_of({"etc/os-release": b"ID=test\n"})
    config = {
        "os": "linux",
        "architecture": architecture,
        "config": {
            "Env": ["PATH=/opt/python/bin", f"PYTHON_VERSION={python}", "MMS_LISTEN=overridden"],
            "User": "root",
        },
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created_by": "base"}],
    }
    return double.add_image("bases/python", "slim", [data], config, docker)


def on_base(builder: Builder, double: RegistryDouble, reference: str = ":slim") -> Built:
    return builder.build(
        base=f"http://{double.location}/bases/python{reference}", registry=credentials(double), tag="built"
    )


@pytest.mark.parametrize("docker", [False, True])
def test_an_image_extends_its_base_image(registry: RegistryDouble, builder: Builder, docker: bool) -> None:
    add_base(registry, docker=docker)
    built = on_base(builder, registry)
    manifest, config = builder.store.read_manifest(built.digest), builder.store.read_config(built.digest)
    base = manifest["layers"][0]
    assert registry.blobs[base["digest"]] == builder.store.blob_path(base["digest"]).read_bytes()
    assert base["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"
    assert len(config["rootfs"]["diff_ids"]) == len(manifest["layers"]) == len(config["history"]) == 4
    environment = dict(item.split("=", 1) for item in config["config"]["Env"])
    assert environment["PATH"] == "/opt/python/bin"
    assert environment["MMS_LISTEN"] == "tcp:0.0.0.0:8080"
    assert builder.store.assemble(built.digest).app.joinpath("score.py").exists()


@pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed")
def test_skopeo_reads_a_pushed_image_with_a_base(registry: RegistryDouble, builder: Builder) -> None:
    add_base(registry)
    built = on_base(builder, registry)
    command = ["skopeo", "inspect", "--no-tags", "--tls-verify=false", f"--creds={USER}:{PASSWORD}"]
    run = subprocess.run([*command, f"docker://{registry.location}/local/iris:built"], capture_output=True, text=True)
    assert json.loads(run.stdout)["Digest"] == built.digest, run.stderr


def test_a_base_is_pulled_once(registry: RegistryDouble, builder: Builder) -> None:
    add_base(registry)
    on_base(builder, registry)
    registry.requests.clear()
    on_base(builder, registry)
    assert [path for method, path, _ in registry.requests if method == "GET" and "/bases/" in path] == []


def test_an_index_provides_the_base_for_this_platform(registry: RegistryDouble, builder: Builder) -> None:
    entries = []
    for architecture in ("riscv64", ARCHITECTURE):
        digest = add_base(registry, architecture=architecture)
        platform = {"os": "linux", "architecture": architecture}
        entries.append({"mediaType": MANIFEST_TYPE, "digest": digest, "size": 1, "platform": platform})
    index = {"mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries}
    registry.add_manifest("bases/python", "many", index)
    assert builder.store.read_config(on_base(builder, registry, ":many").digest)["architecture"] == ARCHITECTURE
    registry.add_manifest("bases/python", "none", {**index, "manifests": entries[:1]})
    assert "no image for" in on_base(builder, registry, ":none").error["message"]


def test_an_unsuitable_base_is_rejected(registry: RegistryDouble, builder: Builder) -> None:
    add_base(registry, python="2.7.18")
    assert "Python 2.7" in on_base(builder, registry).error["message"]
    add_base(registry, architecture="riscv64")
    registry.manifests["bases/python", "other"] = registry.manifests["bases/python", "slim"]
    assert "isn't for" in on_base(builder, registry, ":other").error["message"]


# --- Debian's registry, where it is installed ---------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("docker-registry"), reason="docker-registry is not installed")
def test_dockers_registry_accepts_the_image(builder: Builder, tmp_path: Path) -> None:
    location = f"127.0.0.1:{free_port()}"
    config = tmp_path / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/data}}}}\n"
        f"http: {{addr: {location}}}\n"
    )
    server = subprocess.Popen(["docker-registry", "serve", config], stderr=subprocess.DEVNULL)
    try:
        wait_for(location)
        built = builder.build(registry={"location": location, "user": "", "password": ""}, tag="v1")
        url = f"http://{location}/v2/local/iris/manifests/v1"
        answer = requests.head(url, headers={"Accept": MANIFEST_TYPE}, timeout=5)
        assert answer.headers["Docker-Content-Digest"] == built.digest
    finally:
        server.terminate()
        server.wait(10)


def wait_for(location: str) -> None:
    host, _, port = location.partition(":")
    for _ in range(100):
        try:
            return socket.create_connection((host, int(port)), 1).close()
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"nothing listens at {location}")


@pytest.mark.parametrize("status", [200, 202, 307, 401, 404, 500])
def test_an_endless_response_is_stopped(tmp_path: Path, status: int) -> None:
    """All responses, including redirects, are limited before they are in memory."""
    sent = 0

    class Endless(BaseHTTPRequestHandler):
        def answer(self) -> None:
            nonlocal sent
            self.send_response(status)
            self.send_header("Location", "/v2/again")
            self.send_header("WWW-Authenticate", f'Bearer realm="http://{self.headers["Host"]}/token"')
            self.end_headers()
            with contextlib.suppress(OSError):  # the client closes the connection
                while sent < 300 << 20:
                    self.wfile.write(bytes(1 << 20))
                    sent += 1 << 20

        do_GET = do_POST = do_PUT = answer

        def do_HEAD(self) -> None:
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        client = Registry(f"127.0.0.1:{server.server_address[1]}", USER, PASSWORD)
        with pytest.raises(RegistryError):
            client.push_blob("team/iris", *blob(tmp_path, b"x"))
        with pytest.raises(RegistryError):
            client.manifest("team/iris", "latest")
    finally:
        server.shutdown()
        server.server_close()
    assert sent < 120 << 20  # of up to seven responses, including data in transit
