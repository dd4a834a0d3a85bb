"""What the tests of faults share: files over HTTP, a PostgreSQL, and the figures that each of them measured."""

import functools
import json
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.faults.postgresql import PostgreSQL, programs, server
from tests.journeys.api import EXAMPLE

FIGURES: dict[str, dict[str, object]] = {}
WITHOUT = "PostgreSQL is not installed: WHAT NEEDS IT WAS SKIPPED"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session")
def files_url() -> Iterator[str]:
    """The example's files, as any file server would serve them."""
    files = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(EXAMPLE)))
    threading.Thread(target=files.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{files.server_port}"
    files.shutdown()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    found = programs()
    if found is None:
        pytest.skip(WITHOUT)
    with server(found) as running:
        yield running


@pytest.fixture
def record(request: pytest.FixtureRequest) -> dict[str, object]:
    """Figures put here are printed at the end of the run: docs/promises.md quotes them."""
    return FIGURES.setdefault(request.node.name, {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was measured; and loudly, what was not tested."""
    for name, figures in FIGURES.items():
        terminalreporter.write_line(f"{name}: {json.dumps(figures)}")
    if any(WITHOUT in str(test.longrepr) for test in terminalreporter.stats.get("skipped", [])):
        terminalreporter.write_sep("!", WITHOUT, red=True)
