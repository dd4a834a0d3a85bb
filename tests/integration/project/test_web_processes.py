"""Several web processes on one port: requests are answered while one is missing, and none outlives its parent."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import requests

from tests.site import Site, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "data", WEB_PROCESSES="2")
    try:
        yield site.start()
    finally:
        site.stop()


def workers(web: psutil.Process) -> set[int]:
    found = set()
    for child in web.children():
        with suppress(psutil.Error):
            if "multiprocessing.spawn" in " ".join(child.cmdline()):
                found.add(child.pid)
    return found


def test_two_processes_share_the_port_and_end_together(site: Site) -> None:
    web = site.program("site:web")
    wait_until(lambda: len(workers(web)) == 2, 30, "two processes")
    killed = min(workers(web))
    psutil.Process(killed).kill()
    for _ in range(20):  # a new connection each time
        assert requests.get(f"{site.url}/sign-in/", timeout=30).status_code == 200
    wait_until(lambda: len(workers(web) - {killed}) == 2, 30, "a replacement")

    children = [psutil.Process(pid) for pid in workers(web)]
    web.kill()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    wait_until(lambda: site.health()[0] == 200, 60, "another web program")
    assert site.program("site:web").pid != web.pid
