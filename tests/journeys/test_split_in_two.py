"""Dashboard and MMS run separately, as docker-compose.yml does: single programs, and the MMS with a supervisor."""

import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from dashboard.ops.supervisor.programs import redis_server
from tests.ports import free_port
from tests.site import ROOT, Site, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Return the settings of both halves: one database, one Redis with a password, one secret key."""
    password, port = secrets.token_hex(8), free_port()
    command = [redis_server(), "--port", str(port), "--bind", "127.0.0.1", "--requirepass", password, "--save", ""]
    server = subprocess.Popen([*command, "--dir", str(tmp_path)], stdout=subprocess.DEVNULL)
    yield {
        "REDIS_URL": f"redis://:{password}@127.0.0.1:{port}/0",
        "DATABASE_URL": f"sqlite:///{tmp_path}/shared.sqlite3",
        "SECRET_KEY": secrets.token_hex(16),
    }
    server.terminate()
    server.wait(10)


@pytest.fixture
def dashboard(environment: dict[str, str], tmp_path: Path) -> Iterator[Site]:
    """Start both halves. Yield the dashboard's site."""
    web, mms = (
        Site(tmp_path / "web", SERVE="dashboard", **environment),
        Site(tmp_path / "mms", SERVE="mms", **environment),
    )
    for half in (web, mms):
        half.environment |= {"MMS_URL": mms.url, "GATEWAY_URL": mms.gateway_url}
        half.environment |= {"SITE_URL": web.url, "FILES_URL": web.url}
    with ExitStack() as stack:
        for name in ("web", "worker", "beat"):
            stack.enter_context(program(web, name))
        stack.callback(mms.stop)
        mms.start()
        wait_until(lambda: web.health()[0] == 200, 60, f"the dashboard: {web.health()}")
        yield web
    assert mms.processes() == []


@contextmanager
def program(site: Site, name: str) -> Iterator[None]:
    """Run a single program of the site, and end it with SIGTERM as a container is ended."""
    with (site.data.parent / f"{name}.log").open("wb") as log:
        command = [sys.executable, "manage.py", "run", name]
        running = subprocess.Popen(command, cwd=ROOT, env=site.environment, stdout=log, stderr=log)
        try:
            yield
        finally:
            running.terminate()
            running.wait(20)


def test_the_two_halves_communicate_only_over_http(dashboard: Site) -> None:
    own = {"web", "database", "data folder", "secret key", "redis", "beat", "worker of queue celery"}
    assert set(dashboard.health()[1]) == own
    printed = dashboard.manage("demo")
    assert '"species": ["setosa", "virginica"]' in printed
