"""Fixtures for fault tests: a file server and a PostgreSQL server."""

import functools
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.faults.postgresql import PostgreSQL, programs, server
from tests.journeys.api import EXAMPLE

WITHOUT = "PostgreSQL is not installed: WHAT NEEDS IT WAS SKIPPED"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session")
def files_url() -> Iterator[str]:
    """Serve the example's files over HTTP."""
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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print a warning for tests that were skipped because a program is missing."""
    if any(WITHOUT in str(test.longrepr) for test in terminalreporter.stats.get("skipped", [])):
        terminalreporter.write_sep("!", WITHOUT, red=True)
