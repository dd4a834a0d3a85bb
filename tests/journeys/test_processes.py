"""Process supervision: a clean stop, services that resume, and programs that are restarted."""

import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import requests

from tests.journeys.api import FLOWERS, Api
from tests.site import ROOT, Site, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def service(api: Api, image: str) -> str:
    return api.create_service("lives-on", image)


def test_ctrl_c_leaves_no_process_and_the_next_start_resumes_the_service(running: Site, api: Api, service: str) -> None:
    assert api.score(service)[0] == 200
    assert len(running.processes()) > 6
    running.stop(signal.SIGINT)
    assert running.processes() == []
    running.start()
    wait_until(lambda: api.score(service)[0] == 200, 30, "the service after a restart")


def test_closing_the_terminal_ends_the_site(running: Site) -> None:
    running.stop(signal.SIGHUP)
    assert running.processes() == []
    running.start()


def test_a_killed_supervisor_leaves_no_orphan_that_blocks_the_next_start(running: Site, api: Api, service: str) -> None:
    running.stop(signal.SIGKILL)
    wait_until(lambda: running.processes() == [], 30, f"the end of {running.processes()}")
    running.start()
    wait_until(lambda: api.score(service)[0] == 200, 30, "the service after a crash of the supervisor")


@pytest.mark.parametrize("name", ["gateway", "site:web", "site:worker", "site:mms-worker", "site:beat", "redis"])
def test_a_killed_program_is_restarted(running: Site, name: str) -> None:
    before = running.program(name)
    before.kill()
    after = wait_until(lambda: _other_process(running, name, before.pid), 20, f"{name} to restart")
    assert after.is_running()
    wait_until(lambda: running.health()[0] == 200, 60, f"health after {name} was killed: {running.health()}")


def test_healthz_reports_a_stopped_beat(running: Site) -> None:
    beat = running.program("site:beat")
    beat.suspend()
    try:
        state = wait_until(lambda: running.health()[1].get("beat", "works") != "works", 30, "/healthz to name beat")
        assert state
        assert running.health()[0] == 503
    finally:
        beat.resume()
    wait_until(lambda: running.health()[0] == 200, 30, "health after beat continued")


def test_services_keep_running_while_web_and_workers_restart(running: Site, api: Api, service: str) -> None:
    before = _service_processes(running)
    assert before
    running.supervisorctl("restart", "site:*")
    wait_until(running.works, 60, "a healthy site")
    assert _service_processes(running) == before
    assert api.score(service)[0] == 200


def test_scoring_continues_while_everything_else_is_stopped(running: Site, api: Api, service: str) -> None:
    """Web, workers, scheduler and Redis are killed, stopped and started; no scoring request fails."""
    url = api.service(service)["scoringUri"]
    assert url.startswith(f"{running.gateway_url}/")
    headers = {"Authorization": f"Bearer {api.ask('GET', f'services/{service}/keys')[1]['primaryKey']}"}
    statuses: list[int] = []
    stop = threading.Event()

    def score() -> None:
        while not stop.is_set():  # a new connection each time, which a stopped server would refuse
            statuses.append(requests.post(url, json=FLOWERS, headers=headers, timeout=30).status_code)

    def scores_on() -> None:
        before = len(statuses)
        wait_until(lambda: client.done() or len(statuses) > before + 5, 30, "more scores")

    with ThreadPoolExecutor(1) as pool:
        client = pool.submit(score)
        try:
            scores_on()
            running.program("site:web").kill()
            scores_on()
            for name in ("site:*", "redis"):
                running.supervisorctl("stop", name)
                scores_on()
            for name in ("redis", "site:*"):
                running.supervisorctl("start", name)
                scores_on()
            wait_until(running.works, 60, "a healthy site")
        finally:
            stop.set()
        client.result(60)
    assert set(statuses) == {200}


def test_a_second_site_on_a_data_folder_is_refused_in_one_sentence(running: Site) -> None:
    done = _up(running.environment)
    assert done.returncode != 0
    assert "is already running with the data in" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_reported_in_one_sentence(running: Site, tmp_path: Path) -> None:
    done = _up({**running.environment, "DATA_DIR": str(tmp_path / "data")})
    assert done.returncode != 0
    assert f"PORT={running.port}: " in done.stderr
    assert "Traceback" not in done.stderr


def test_no_command_line_contains_a_secret(running: Site, api: Api) -> None:
    secret = (running.data / "secret_key").read_text()
    lines = [" ".join(process.cmdline()) for process in running.processes()]
    assert lines
    assert not [line for line in lines if secret in line or api.token in line]


def _up(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "manage.py", "up"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


def _other_process(site: Site, name: str, pid: int) -> psutil.Process | None:
    answer = site.supervisorctl("pid", name)
    return psutil.Process(int(answer)) if answer.isdigit() and int(answer) not in {0, pid} else None


def _service_processes(site: Site) -> set[int]:
    """Return the processes of all services, which are programs outside the group `site`."""
    names = [line.split()[0] for line in site.supervisorctl("status").splitlines()]
    return {int(site.supervisorctl("pid", name)) for name in names if name.startswith("mms-")} - {0}
