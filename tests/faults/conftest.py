"""What the tests of faults share: the example's files over HTTP, and the figures that each of them measured."""

import functools
import json
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.journeys.api import EXAMPLE

FIGURES: dict[str, dict[str, object]] = {}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session")
def files_url() -> Iterator[str]:
    """The example's files, as any file server would serve them."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(EXAMPLE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def record(request: pytest.FixtureRequest) -> dict[str, object]:
    """Figures put here are printed at the end of the run: docs/promises.md quotes them."""
    return FIGURES.setdefault(request.node.name, {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name, figures in FIGURES.items():
        terminalreporter.write_line(f"{name}: {json.dumps(figures)}")
