"""A separate site for the journeys, which may download models from loopback."""

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.journeys.api import EXAMPLE, Api
from tests.site import Site


@pytest.fixture(scope="package")
def files_url() -> Iterator[str]:
    """Serve the example's files over HTTP."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(EXAMPLE))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="package")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("journeys") / "data"


@pytest.fixture(scope="package")
def running(data: Path) -> Iterator[Site]:
    """Return the site. A journey that stops it must start it again."""
    site = Site(data, MMS_FETCH_ALLOW_PRIVATE="true").start()
    yield site
    site.stop()


@pytest.fixture(scope="package")
def api(running: Site, files_url: str) -> Api:
    return Api(running, files_url)


@pytest.fixture(scope="package")
def image(api: Api) -> str:
    """Build an image of the example over the API."""
    return api.create_image(api.create_manifest(api.register_model()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print a warning if no container engine could run an image."""
    skipped = terminalreporter.stats.get("skipped", [])
    for reason in {test.longrepr[2] for test in skipped if "test_in_a_container" in test.nodeid}:
        terminalreporter.write_sep("!", reason.removeprefix("Skipped: "), red=True)
