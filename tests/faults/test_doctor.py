"""A whole site with one broken part at a time: `doctor` reports exactly that part and how to fix it."""

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dashboard.ops.supervisor.heartbeat import STALE_SECONDS
from tests.site import ROOT, Site, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Start a site for the tests of this module."""
    site = Site(tmp_path_factory.mktemp("doctor") / "data").start()
    yield site
    site.stop()


@pytest.fixture(autouse=True)
def healthy(broken: Site) -> Iterator[None]:
    """Wait until the site is healthy again before the next test."""
    yield
    wait_until(broken.works, 60, f"a healthy site: {broken.health()}")


def ask_doctor(site: Site) -> tuple[int, list[dict[str, Any]], float]:
    """Run doctor. Return the exit status, the findings, and the seconds it took."""
    command, started = [sys.executable, "manage.py", "doctor", "--json"], time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=site.environment, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)["findings"], time.monotonic() - started


def failed(findings: list[dict[str, Any]]) -> dict[str, str]:
    """Return the advice for each part that has failed."""
    return {finding["part"]: finding["advice"] for finding in findings if finding["state"] == "failed"}


@contextmanager
def stopped(site: Site, name: str) -> Iterator[None]:
    """Stop a program during the `with` block."""
    site.supervisorctl("stop", name)
    try:
        yield
    finally:
        site.supervisorctl("start", name)


@contextmanager
def frozen(site: Site, name: str) -> Iterator[None]:
    """Make a program hang during the `with` block."""
    process = site.program(name)
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def test_every_check_of_a_healthy_site_passes_and_every_queue_runs_a_task(broken: Site) -> None:
    status, findings, seconds = ask_doctor(broken)
    assert (status, failed(findings)) == (0, {})
    done = [finding for finding in findings if "A task sent to queue" in finding["says"]]
    assert [(finding["part"], finding["state"]) for finding in done] == [("worker", "ok"), ("mms-worker", "ok")]
    assert any("Test call: listed 0 services" in finding["says"] for finding in findings)
    assert seconds < 20


def test_only_a_hanging_worker_is_reported_and_the_advised_command_fixes_it(broken: Site) -> None:
    broken.program("site:worker").suspend()
    wait_until_stale()
    status, findings, _ = ask_doctor(broken)
    assert status == 1
    assert set(failed(findings)) == {"worker"}
    command = failed(findings)["worker"].split("`")[1].split()
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    wait_until(broken.works, 60, f"a healthy site: {broken.health()}")
    assert failed(ask_doctor(broken)[1]) == {}


def test_of_two_hanging_programs_both_are_reported_and_no_others(broken: Site) -> None:
    with frozen(broken, "site:beat"), frozen(broken, "site:mms-worker"):
        wait_until_stale()
        status, findings, _ = ask_doctor(broken)
    assert status == 1
    assert set(failed(findings)) == {"beat", "mms-worker"}


def wait_until_stale() -> None:
    """Wait until a program without heartbeats counts as stopped, which depends only on the elapsed time."""
    time.sleep(STALE_SECONDS + 1)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("site:beat", {"beat"}),
        ("redis", {"Redis"}),
        ("site:web", {"web", "account local"}),  # because the bundled MMS runs there; the gateway doesn't
    ],
)
def test_a_stopped_program_is_reported_immediately_with_the_command_that_starts_it(
    broken: Site, name: str, parts: set[str]
) -> None:
    with stopped(broken, name):
        status, findings, seconds = ask_doctor(broken)
    assert status == 1
    assert set(failed(findings)) == parts
    advice = " ".join(finding["advice"] for finding in findings)
    assert f"start {name}`" in advice
    assert seconds < 25


def test_only_a_hanging_redis_is_reported_as_failed(broken: Site) -> None:
    with frozen(broken, "redis"):
        status, findings, seconds = ask_doctor(broken)
    assert status == 1
    assert set(failed(findings)) == {"Redis"}
    unknown = {finding["part"] for finding in findings if finding["state"] == "unknown"}
    assert {"beat", "worker", "mms-worker"} <= unknown
    assert seconds < 15


def test_a_locked_database_is_reported_with_the_process(broken: Site) -> None:
    file = broken.data / "db.sqlite3"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(file)], stdout=subprocess.PIPE)
    assert holder.stdout
    holder.stdout.readline()
    try:
        status, findings, _ = ask_doctor(broken)
    finally:
        holder.kill()
        holder.wait(10)
    assert status == 1
    assert f"process {holder.pid} (" in failed(findings)["database"]


HOLD = """
import sqlite3, sys, time
sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20).execute("BEGIN IMMEDIATE")
print("held", flush=True)
time.sleep(60)
"""


def test_a_readable_secret_key_and_a_newer_database_are_reported(broken: Site) -> None:
    (broken.data / "secret_key").chmod(0o644)
    with _future(broken.data / "db.sqlite3"):
        status, findings, _ = ask_doctor(broken)
    assert status == 1
    assert set(failed(findings)) == {"secrets", "database"}
    subprocess.run(failed(findings)["secrets"].strip("`").split(), check=True)
    assert failed(ask_doctor(broken)[1]) == {}


@contextmanager
def _future(file: Path) -> Iterator[None]:
    """Record a migration of a newer release during the `with` block."""
    with sqlite3.connect(file, timeout=20) as link:
        link.execute("INSERT INTO django_migrations (app, name, applied) VALUES ('mms', '9999_future', '2030-01-01')")
    yield
    with sqlite3.connect(file, timeout=20) as link:
        link.execute("DELETE FROM django_migrations WHERE name = '9999_future'")
