"""/healthz: status 200 if every part works, else 503 and the parts that don't."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from dashboard.ops.supervisor import heartbeat, storage
from tests.gateway_server import GatewayServer
from tests.support.lifecycle import present

pytestmark = pytest.mark.django_db
PROGRAMS = ["beat:dashboard+mms", "worker:celery", "worker:mms"]


@pytest.fixture(autouse=True)
def gateway(tmp_path: Path, settings: Settings) -> Iterator[GatewayServer]:
    """Run a gateway on a free port."""
    with GatewayServer(tmp_path) as server:
        settings.GATEWAY_PORT = server.port
        yield server


@pytest.fixture(autouse=True)
def unknown_storage() -> None:
    """Forget whether the database and the data folder could be written to."""
    storage.forget()


@pytest.fixture
def heartbeats(live_redis: redis.Redis) -> redis.Redis:
    """Write a recent heartbeat of every program."""
    for name in PROGRAMS:
        heartbeat.write(live_redis, name, time.time())
    return live_redis


def put(client: redis.Redis, name: str, seconds_ago: float, worked_seconds_ago: float = 0) -> None:
    now = time.time()
    client.set(f"heartbeat:{name}", f"{now - seconds_ago} {now - worked_seconds_ago}")


def test_all_parts_work_while_every_program_has_a_heartbeat(client: Client, heartbeats: redis.Redis) -> None:
    answer = client.get("/healthz")
    assert answer.status_code == 200
    assert answer.json()["ok"] is True
    assert set(answer.json()["parts"].values()) == {"works"}


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("beat:dashboard+mms", "beat"),
        ("worker:celery", "worker of queue celery"),
        ("worker:mms", "worker of queue mms"),
    ],
)
def test_only_the_program_without_a_heartbeat_is_reported(
    client: Client, heartbeats: redis.Redis, name: str, label: str
) -> None:
    put(heartbeats, name, seconds_ago=heartbeat.STALE_SECONDS + 1)
    answer = client.get("/healthz")
    assert answer.status_code == 503
    broken = {part: state for part, state in answer.json()["parts"].items() if state != "works"}
    assert broken == {label: "no heartbeat for 13 s"}


def test_a_worker_that_never_started_is_reported(client: Client, heartbeats: redis.Redis) -> None:
    heartbeats.delete("heartbeat:worker:mms")
    assert "no heartbeat" in client.get("/healthz").json()["parts"]["worker of queue mms"]


def test_a_running_worker_that_completes_no_tasks_is_reported(client: Client, heartbeats: redis.Redis) -> None:
    put(heartbeats, "worker:celery", seconds_ago=0, worked_seconds_ago=heartbeat.IDLE_SECONDS + 5)
    answer = client.get("/healthz")
    assert answer.status_code == 503
    assert "no task completed in 35 s" in answer.json()["parts"]["worker of queue celery"]


def test_idle_workers_pass_while_the_scheduler_is_stopped(client: Client, heartbeats: redis.Redis) -> None:
    put(heartbeats, "beat:dashboard+mms", seconds_ago=100)
    put(heartbeats, "worker:celery", seconds_ago=0, worked_seconds_ago=100)
    parts = client.get("/healthz").json()["parts"]
    assert parts["worker of queue celery"] == "works"
    assert parts["beat"] != "works"


def test_only_a_stopped_gateway_is_reported(client: Client, heartbeats: redis.Redis, gateway: GatewayServer) -> None:
    gateway.stop()
    answer = client.get("/healthz")
    assert answer.status_code == 503
    broken = {part: state for part, state in answer.json()["parts"].items() if state != "works"}
    assert broken == {"gateway": "not responding"}


def test_only_an_unreachable_redis_is_reported(client: Client, settings: Settings, tmp_path: Path) -> None:
    settings.REDIS_URL = f"unix://{tmp_path}/nobody.sock"
    answer = client.get("/healthz")
    assert answer.status_code == 503
    parts = answer.json()["parts"]
    assert parts["redis"] == "Redis can't be reached"
    assert parts["beat"] == "unknown: Redis can't be reached"
    assert parts["database"] == "works"


def test_a_full_redis_is_reported_and_not_the_programs(client: Client, heartbeats: redis.Redis) -> None:
    limit = heartbeats.config_get("maxmemory")["maxmemory"]
    heartbeats.config_set("maxmemory", "1")
    try:
        answer = client.get("/healthz")
    finally:
        heartbeats.config_set("maxmemory", present(limit))
    assert answer.status_code == 503
    broken = {part: state for part, state in answer.json()["parts"].items() if state != "works"}
    programs = ("beat", "worker of queue celery", "worker of queue mms")
    assert broken == {"redis": "Redis is full"} | dict.fromkeys(programs, "unknown: Redis is full")


def test_a_database_that_cannot_be_written_to_is_reported(client: Client, heartbeats: redis.Redis) -> None:
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA query_only = 1")
        try:
            answer = client.get("/healthz")
        finally:
            cursor.execute("PRAGMA query_only = 0")
    assert answer.status_code == 503
    assert answer.json()["parts"]["database"] == "The database disk is full or can’t be written to"


def test_a_data_folder_that_cannot_be_written_to_is_reported(
    client: Client, heartbeats: redis.Redis, settings: Settings, tmp_path: Path
) -> None:
    settings.TMP_DIR = tmp_path / "missing"
    answer = client.get("/healthz")
    assert answer.status_code == 503
    assert answer.json()["parts"]["data folder"] == "can’t be written to: No such file or directory"


def test_requests_in_quick_succession_write_once(client: Client, heartbeats: redis.Redis) -> None:
    with CaptureQueriesContext(connection) as queries:
        for _ in range(5):
            client.get("/healthz")
    assert len([query for query in queries if "trialwrite" in query["sql"]]) == 1


def test_restarts_are_counted_and_a_crash_loop_is_reported(
    client: Client, heartbeats: redis.Redis, settings: Settings, tmp_path: Path
) -> None:
    settings.LOG_DIR = tmp_path
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time() - 10))
    crash = f"{at},000 WARN exited: worker (exit status 1; not expected)\n"
    (tmp_path / "supervisord.log").write_text(crash)
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json()["restarts"]) == (200, {"worker": 1})
    (tmp_path / "supervisord.log").write_text(crash * 3)
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json()["restarts"]) == (503, {"worker": 3})
    assert answer.json()["parts"]["restarts"] == "worker: restarted repeatedly within the last minute"


def test_a_browser_gets_plain_text(client: Client, heartbeats: redis.Redis) -> None:
    answer = client.get("/healthz", headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert answer["content-type"].startswith("text/plain")
    assert b"database: works\n" in answer.content
