"""/healthz: status 200 if every part works, else 503 and the parts that don't."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from django.test import Client
from pytest_django import Settings

from dashboard.ops.supervisor import heartbeat
from mms.gateway.app import Gateway
from tests.asgi_server import Server

pytestmark = pytest.mark.django_db
PROGRAMS = ["beat:dashboard+mms", "worker:celery", "worker:mms"]


@pytest.fixture(autouse=True)
def gateway(tmp_path: Path, settings: Settings) -> Iterator[Server]:
    """Run a gateway on a free port."""
    with Server(Gateway(tmp_path)) as server:
        settings.GATEWAY_PORT = server.port
        yield server


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


def test_only_a_stopped_gateway_is_reported(client: Client, heartbeats: redis.Redis, gateway: Server) -> None:
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
    assert parts["redis"] == "not responding"
    assert parts["beat"] == "unknown while Redis isn’t responding"
    assert parts["database"] == "works"


def test_a_browser_gets_plain_text(client: Client, heartbeats: redis.Redis) -> None:
    answer = client.get("/healthz", headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert answer["content-type"].startswith("text/plain")
    assert b"database: works\n" in answer.content
