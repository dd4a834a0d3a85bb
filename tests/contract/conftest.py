"""The server under test: one started for the tests, or the one given by --mms-url."""

import contextlib
import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.server import Server, as_object, image_body, service_body
from tests.site import Site

DRIVER = """
import json, pathlib

def init():
    global word
    word = pathlib.Path("word.txt").read_text().strip()

def run(body):
    return {"word": word, "sent": json.loads(body)}
"""

BROKEN = """
def init():
    raise RuntimeError("this driver never starts")

def run(body):
    return None
"""


@pytest.fixture(scope="session")
def own_site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site | None]:
    """Start the bundled MMS alone, with downloads from loopback allowed. Yield None if another server is tested."""
    if request.config.getoption("--mms-url"):
        yield None
        return
    site = Site(tmp_path_factory.mktemp("contract") / "data", SERVE="mms", MMS_FETCH_ALLOW_PRIVATE="true")
    try:
        yield site.start()
    finally:
        site.stop()


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest, own_site: Site | None) -> Server:
    option = request.config.getoption
    names = option("--mms-subscription"), option("--mms-resource-group"), option("--mms-account")
    if own_site is None:
        return Server(option("--mms-url"), option("--mms-token"), *names)
    return Server(own_site.url, own_site.manage("create_token", "--account", "local"), *names)


@pytest.fixture(scope="session")
def other_account(own_site: Site | None) -> Server:
    """Return another hosting account of the same server, with its own token."""
    if own_site is None:
        pytest.skip("needs a second account, which only a server of our own has")
    token = own_site.manage("create_token", "--account", "other", "--create")
    return Server(own_site.url, token, "other", "other", "other")


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a model, two drivers, and /slow, which takes a minute. Yield the URL of the file server."""
    folder: Path = tmp_path_factory.mktemp("files")
    (folder / "word.txt").write_text("hello\n")
    (folder / "score.py").write_text(DRIVER)
    (folder / "broken.py").write_text(BROKEN)

    def serve(*arguments: Any) -> http.server.SimpleHTTPRequestHandler:
        return Quiet(*arguments, directory=str(folder))

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{listener.server_port}"
    listener.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path != "/slow":
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Length", "600")
        self.end_headers()
        with contextlib.suppress(OSError):  # the builder was stopped
            for _ in range(600):
                self.wfile.write(b"x")
                time.sleep(0.1)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture(scope="session")
def buildable(server: Server, files: str) -> dict[str, Any]:
    """Create a manifest that can be built and run: a text as model, and a driver that reads it."""
    model = server.model(url=f"{files}/word.txt")
    assets = [{"id": "score", "url": f"{files}/score.py", "mimeType": "text/x-python", "unPack": False}]
    return server.manifest(modelIds=[model["id"]], assets=assets)


@pytest.fixture(scope="session")
def image(server: Server, buildable: dict[str, Any]) -> dict[str, Any]:
    """Build an image."""
    operation = server.finished(server.send("POST", "images", image_body(buildable["id"])))
    assert operation["state"] == "Succeeded", operation
    return as_object(server.send("GET", f"images/{operation['resourceLocation'].rsplit('/', 1)[1]}"))


@pytest.fixture(scope="session")
def service(server: Server, image: dict[str, Any]) -> dict[str, Any]:
    """Create a running service."""
    operation = server.finished(server.send("POST", "services", service_body(image["id"])))
    assert operation["state"] == "Succeeded", operation
    return as_object(server.send("GET", f"services/{operation['resourceLocation'].rsplit('/', 1)[1]}"))
