"""A complete site whose operations can be held in any phase, so that a kill happens in exactly that phase.

Every function of PHASES starts an operation and returns when it is in that phase. To hold it there, a file server stops
halfway, an index or a registry doesn't answer, a builder is stopped while it unpacks or writes, a driver is slow, or
the lock of the routes is held from outside.
"""

import fcntl
import io
import itertools
import os
import sqlite3
import tarfile
import threading
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import psutil
import requests

from tests.builder import pip_config
from tests.doubles.files import Files, running_files
from tests.doubles.registry import RegistryDouble, running_registry
from tests.journeys.api import HERE, KUBE_CONFIG, Api
from tests.site import Site, wait_until
from tests.support.wheels import make_wheel

MB = 1 << 20
DRIVER = """
import json, time
def init():
    time.sleep({init})
def run(body):
    time.sleep(json.loads(body))
    return {number}
"""
_numbers = itertools.count(1)


@dataclass
class Gate:
    """Gate that blocks a caller until `open` is called, and reports that one is waiting."""

    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)

    def wait(self) -> None:
        self.reached.set()
        self.opened.wait(120)


@dataclass
class Held:
    """Operation held in the middle of a phase. `go` releases it; `again` repeats the identical request."""

    phase: str
    operation: str
    again: Callable[[], requests.Response]
    go: Callable[[], None] = lambda: None
    manifest: str = ""  # of a build
    service: str = ""


class World:
    """Site, its API, and the servers it talks to."""

    def __init__(self, site: Site, files: Files, registry: RegistryDouble, wheels: Path) -> None:
        self.site, self.files, self.registry, self.wheels = site, files, registry, wheels
        self.api = Api(site, files.url)
        self.session = requests.Session()

    # --- requests -------------------------------------------------------------------------------------------------

    def send(self, method: str, path: str, body: Any = None, key: str = "") -> requests.Response:
        headers = {"Authorization": f"Bearer {self.api.token}", "x-ms-client-request-id": key or str(uuid.uuid4())}
        url = f"{self.api.base}/{path}?api-version=2017-06-01-privatepreview"
        return requests.request(method, url, json=body, headers=headers, timeout=30)

    def asked(self, phase: str, method: str, path: str, body: Any = None, **more: Any) -> Held:
        """Send a request and return the operation it starts."""
        key = str(uuid.uuid4())
        answer = self.send(method, path, body, key)
        assert answer.status_code in {200, 202}, answer.text
        return Held(phase, answer.headers["x-ms-request-id"], lambda: self.send(method, path, body, key), **more)

    def operation(self, id: str) -> dict[str, Any]:
        answer = self.send("GET", f"operations/{id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def ended(self, id: str, seconds: float = 60) -> dict[str, Any]:
        """Wait until the operation ends, in any state, and return it."""

        def over() -> dict[str, Any] | None:
            try:
                found = self.operation(id)
            except requests.RequestException:  # web is starting
                return None
            return None if found["state"] in {"NotStarted", "Running"} else found

        return dict(wait_until(over, seconds, f"the end of operation {id}"))

    def rows(self, sql: str, *values: str) -> list[tuple[Any, ...]]:
        """Read rows directly from the database."""
        connection = sqlite3.connect(f"file:{self.site.data / 'db.sqlite3'}?mode=ro", uri=True, timeout=20)
        try:
            return connection.execute(sql, [value.replace("-", "") for value in values]).fetchall()
        finally:
            connection.close()

    # --- making things --------------------------------------------------------------------------------------------

    def manifest(self, model_path: str, driver: str = "", unpack: bool = False, requirements: str = "") -> str:
        number = next(_numbers)
        self.files.put(f"/score-{number}.py", (driver or DRIVER.format(init=0, number=number)).encode())
        model = {"name": f"m{number}", "url": self.files.url + model_path, "unpack": unpack}
        answer = self.send("POST", "models", model)
        assert answer.status_code == 201, answer.text
        body = {
            "modelType": "Registered",
            "modelIds": [answer.json()["id"]],
            "driverProgram": "score",
            "assets": [
                {"id": "score", "url": f"{self.files.url}/score-{number}.py", "mimeType": "text/x-python"},
            ],
            "targetRuntime": {"runtimeType": "Python", "properties": {"pipRequirements": requirements}},
        }
        answer = self.send("POST", "manifests", body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    def build(self, manifest: str, phase: str = "", registry: dict[str, str] = HERE) -> Held:
        body = {"manifestId": manifest, "imageType": "Docker", "registryInfo": registry}
        return self.asked(phase, "POST", "images", body, manifest=manifest)

    def made(self, held: Held) -> str:
        """Wait for the operation to succeed. Return the id of the created resource."""
        operation = self.ended(held.operation)
        assert operation["state"] == "Succeeded", operation
        return str(operation["resourceLocation"]).rsplit("/", 1)[1]

    def image(self, init: float = 0) -> str:
        """Build an image whose driver starts in `init` seconds and answers after the requested time."""
        number = next(_numbers)
        self.files.put("/small.bin", b"weights")
        manifest = self.manifest("/small.bin", DRIVER.format(init=init, number=number))
        return self.made(self.build(manifest))

    def create_service(self, image: str, phase: str = "") -> Held:
        name = f"s{next(_numbers)}"
        body = {"name": name, "imageId": image, "kubeConfig": KUBE_CONFIG, "acrImagePullSecret": "local"}
        return self.asked(phase, "POST", "services", body)

    def service(self, image: str) -> str:
        """Create a service and wait until it runs."""
        return self.made(self.create_service(image))

    def update(self, service: str, image: str, phase: str = "") -> Held:
        body = {"imageId": image, "acrImagePullSecret": "local"}
        return self.asked(phase, "PUT", f"services/{service}", body, service=service)

    def score(self, service: str, seconds: float = 0) -> requests.Response:
        """Send a scoring request that takes `seconds`, and return the response."""
        key = self.send("GET", f"services/{service}/keys").json()["primaryKey"]
        uri = self.send("GET", f"services/{service}").json()["scoringUri"]
        return requests.post(uri, json=seconds, headers={"Authorization": f"Bearer {key}"}, timeout=60)


@contextmanager
def running_world(folder: Path, **environment: str) -> Iterator[World]:
    """Start a site that may download from loopback and uses a package index on loopback first."""
    wheels = folder / "wheels"
    wheels.mkdir()
    with ExitStack() as stack:
        files = stack.enter_context(running_files())
        registry = stack.enter_context(running_registry())
        config = pip_config(folder, extra_index_url=f"{files.url}/simple")
        settings = {"MMS_FETCH_ALLOW_PRIVATE": "true", "MMS_BUILDS": "8", "MMS_PIP_CONFIG": str(config)}
        site = Site(folder / "data", **settings, **environment).start()
        stack.callback(lambda: site.stop())
        yield World(site, files, registry, wheels)


# --- the phases ---------------------------------------------------------------------------------------------------


def download(world: World) -> Held:
    """Hold a build whose download has stopped halfway."""
    path = f"/held-{next(_numbers)}.bin"
    gate = held_before(world, path, os.urandom(4 * MB), "application/octet-stream", after=2 * MB)
    held = world.build(world.manifest(path), "download")
    assert gate.reached.wait(30)
    held.go = gate.opened.set
    return held


def unpack(world: World) -> Held:
    """Stop a builder while it unpacks an archive of a third of a gigabyte."""
    path = f"/held-{next(_numbers)}.tar.gz"
    world.files.put(path, _zeros(320 * MB))
    held = world.build(world.manifest(path, unpack=True), "unpack")
    held.go = stopped_at_work(world, "build-*/build-*/model-0.unpacked/weights.bin", MB)
    return held


def resolve(world: World) -> Held:
    """Hold a build whose package index doesn't answer."""
    name, _, page = _package(world)
    gate = held_before(world, f"/simple/{name}/", page, "text/html")
    return _build_with(world, name, gate, "resolve")


def install(world: World) -> Held:
    """Hold a build that has locked a package and received half of its wheel."""
    name, wheel, page = _package(world)
    world.files.put(f"/simple/{name}/", page, "text/html")
    world.files.put(f"/wheels/{wheel.name}.metadata", _metadata(wheel))
    gate = held_before(world, f"/wheels/{wheel.name}", wheel.read_bytes(), "application/zip", after=200)
    return _build_with(world, name, gate, "install")


def _package(world: World) -> tuple[str, Path, bytes]:
    """Return a new package: its name, its wheel, and its page in the index."""
    name = f"heldthing{next(_numbers)}"
    wheel = make_wheel(world.wheels, name, "1.0")
    world.files.put(f"/wheels/{wheel.name}", wheel.read_bytes())
    link = f'<a href="{world.files.url}/wheels/{wheel.name}" data-core-metadata="true">{wheel.name}</a>'
    return name, wheel, f"<html><body>{link}</body></html>".encode()


def _metadata(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("/METADATA")))


def held_before(world: World, path: str, body: bytes, content_type: str, after: int = 0) -> Gate:
    """Serve the first `after` bytes of `body`, and the rest when the gate is open."""
    gate = Gate()

    def page(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", content_type)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[:after])
        if not gate.opened.is_set():
            gate.wait()
        request.wfile.write(body[after:])

    world.files.serve(path, page)
    return gate


def _build_with(world: World, package: str, gate: Gate, phase: str) -> Held:
    world.files.put("/small.bin", b"weights")
    held = world.build(world.manifest("/small.bin", requirements=f"{package}==1.0\n"), phase)
    assert gate.reached.wait(60)
    held.go = gate.opened.set
    return held


def layer(world: World) -> Held:
    """Stop a builder while it writes the layer of a model of about 200 MB."""
    path = f"/held-{next(_numbers)}.bin"
    world.files.put(path, os.urandom(MB) * 200)
    held = world.build(world.manifest(path), "layer")
    held.go = stopped_at_work(world, "build-*/build-*/layer-*.blob", MB)
    return held


def push(world: World) -> Held:
    """Hold a push whose registry doesn't answer after a blob was sent."""
    gate = Gate()
    world.registry.before_upload = lambda: None if gate.opened.is_set() else gate.wait()
    world.files.put("/small.bin", os.urandom(100))
    registry = {"location": f"http://{world.registry.location}", "user": "", "password": ""}
    held = world.build(world.manifest("/small.bin"), "push", registry)
    assert gate.reached.wait(30)
    held.go = gate.opened.set
    return held


def start(world: World, image: str) -> Held:
    """Hold a new service while the init() of its first revision runs."""
    held = world.create_service(image, "start")
    wait_until(lambda: _starting(world, held), 20, "the revision to start")
    return held


def switch(world: World, service: str, newer: str) -> Held:
    """Hold an update whose new revision is healthy, while the worker waits for the lock of the routes."""
    lock = (world.site.data / "run" / "routes.lock").open("a")
    fcntl.flock(lock, fcntl.LOCK_EX)
    held = world.update(service, newer, "switch")
    wait_until(lambda: _has_waiter(lock), 30, "the worker to reach the switch")
    held.go = lock.close
    return held


def drain(world: World, service: str, newer: str) -> Held:
    """Hold an update after the switch, while the old revision still answers a request."""
    asking = threading.Thread(target=_quietly, args=[world.score, service, 6.0], daemon=True)
    asking.start()
    held = world.update(service, newer, "drain")
    states = "SELECT state FROM mms_revision WHERE service_id = ? ORDER BY number"
    wait_until(
        lambda: world.rows(states, service) == [("draining",), ("active",)], 30, "the old revision to drain", every=0.02
    )
    return held


def delete(world: World, service: str) -> Held:
    """Hold a deletion: clients no longer see the service, but its process still answers a request."""
    asking = threading.Thread(target=_quietly, args=[world.score, service, 6.0], daemon=True)
    asking.start()
    time.sleep(0.3)  # let the request reach the driver, which can't be observed from outside
    held = world.asked("delete", "DELETE", f"services/{service}", service=service)
    stopping = "STOPPING"
    wait_until(lambda: stopping in world.site.supervisorctl("status"), 30, "the revision to be asked to stop")
    return held


PHASES: dict[str, Callable[..., Held]] = {
    phase.__name__: phase for phase in (download, unpack, resolve, install, layer, push, start, switch, drain, delete)
}
BUILDS = ("download", "unpack", "resolve", "install", "layer", "push")
SERVICES = ("start", "switch", "drain", "delete")
INIT = 5.0  # seconds that the driver of `start` needs to start


def enter(world: World, *phases: str) -> list[Held]:
    """Start one operation in each of the phases, all at the same time."""
    ready = [(phase, _what_it_takes(world, phase)) for phase in phases]
    return [PHASES[phase](world, *things) for phase, things in ready]


def _what_it_takes(world: World, phase: str) -> list[str]:
    """Return the images and services that the phase requires."""
    if phase in BUILDS:
        return []
    if phase == "start":
        return [world.image(init=INIT)]
    service = world.service(world.image())
    return [service] if phase == "delete" else [service, world.image()]


def stopped_at_work(world: World, pattern: str, size: int) -> Callable[[], None]:
    """Wait until a file of a running build has some content, and stop its builder. Return what releases it.

    Stopping it makes the phase last on a fast machine, because other operations are still entering theirs.
    """

    def large_enough() -> Path | None:
        with suppress(FileNotFoundError):
            return next((path for path in (world.site.data / "tmp").glob(pattern) if path.stat().st_size >= size), None)
        return None

    path = wait_until(large_enough, 60, pattern, every=0.005)
    directory = world.site.data / "tmp" / path.relative_to(world.site.data / "tmp").parts[0]
    (builder,) = (process for process in psutil.process_iter() if _builds_in(process, directory))
    builder.suspend()

    def go() -> None:
        with suppress(psutil.NoSuchProcess):
            builder.resume()

    return go


def _builds_in(process: psutil.Process, directory: Path) -> bool:
    try:
        return "mms.images.build" in process.cmdline() and process.environ().get("TMPDIR") == str(directory)
    except psutil.Error:
        return False


def _zeros(size: int) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
        info = tarfile.TarInfo("weights.bin")
        info.size = size
        archive.addfile(info, io.BytesIO(bytes(size)))
    return packed.getvalue()


def _starting(world: World, held: Held) -> bool:
    (number,) = world.rows("SELECT service_id FROM mms_operation WHERE id = ?", held.operation)[0]
    held.service = str(uuid.UUID(number))
    return f"mms-{number}-1" in world.site.supervisorctl("status") and bool(
        list((world.site.data / "run" / "services").glob(f"mms-{number}-1.starts"))
    )


def _has_waiter(lock: Any) -> bool:
    inode = f":{os.fstat(lock.fileno()).st_ino} "
    return any("->" in line and inode in line for line in Path("/proc/locks").read_text().splitlines())


def _quietly(call: Callable[..., Any], *arguments: Any) -> None:
    with suppress(requests.RequestException, KeyError, ValueError):
        call(*arguments)
