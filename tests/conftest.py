"""Fixtures for all tests: real servers, nothing patched."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.conf import global_settings, settings
from playwright.sync_api import Browser, sync_playwright

from dashboard.ops.supervisor.programs import redis_server as redis_binary
from deployments.models import HostingAccount
from tests.doubles.mms import MMS
from tests.figures import FIGURES
from tests.site import Site
from tests.support.audit_log import allow_deleting_entries
from tests.support.lifecycle import account_at


def chromium() -> str | None:
    """Return the path of a Chromium on PATH, or None."""
    return next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)


def pytest_configure() -> None:
    """Use a fast password hasher in this process. Sites that tests start as separate processes aren't affected."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher", *global_settings.PASSWORD_HASHERS]


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> None:
    """Let transactional tests empty the audit log, which triggers protect unless entries are being pruned."""
    with django_db_blocker.unblock():
        allow_deleting_entries()


@pytest.fixture
def slow_hasher(settings: Any) -> None:
    """Use the password hasher of a real site, for tests that measure how long hashing takes."""
    settings.PASSWORD_HASHERS = global_settings.PASSWORD_HASHERS


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip browser tests if Chromium isn't installed."""
    if not chromium():
        for item in items:
            if item.get_closest_marker("browser"):
                item.add_marker(pytest.mark.skip(reason="Chromium is not installed"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print a warning for tests that were skipped because a program is missing."""
    if not chromium():
        terminalreporter.write_sep("!", "Chromium is not installed: THE BROWSER TESTS WERE SKIPPED", red=True)


@pytest.fixture
def record(request: pytest.FixtureRequest) -> dict[str, object]:
    """Return a recorder for figures, which are printed at the end of the run."""
    figures: dict[str, object] = {}
    FIGURES[request.node.name] = figures
    return figures


@pytest.fixture(scope="session")
def redis_server() -> Iterator[redis.Redis]:
    """Start a real Redis server on the Unix socket of the test settings, once per run."""
    path = settings.REDIS_URL.removeprefix("unix://")
    server = subprocess.Popen(
        [redis_binary(), "--port", "0", "--unixsocket", path, "--save", "", "--dir", str(settings.TMP_DIR)],
        stdout=subprocess.DEVNULL,
    )
    client = redis.Redis.from_url(settings.REDIS_URL)
    for _ in range(100):
        try:
            client.ping()
            break
        except redis.ConnectionError:
            time.sleep(0.05)
    yield client
    server.terminate()
    server.wait(10)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Start a headless Chromium."""
    # Playwright runs an event loop in this thread, which would make Django refuse database access in later tests.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def live_redis(redis_server: redis.Redis) -> redis.Redis:
    """Return the Redis server, emptied."""
    redis_server.flushall()
    return redis_server


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Start a complete site with real processes, a free port and its own data folder."""
    running = Site(tmp_path_factory.mktemp("site") / "data").start()
    yield running
    running.stop()


@pytest.fixture
def mms() -> Iterator[MMS]:
    """Start a test double of the MMS that implements only the API reference."""
    with MMS() as server:
        yield server


@pytest.fixture
def account(mms: MMS, live_redis: redis.Redis) -> HostingAccount:
    """Create a hosting account for the test double."""
    return account_at(mms.url)
