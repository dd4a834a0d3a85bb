"""/healthz: 200 when everything works, else 503 and which part does not."""

import time
from pathlib import Path

import pytest
import redis
from django.test import Client
from pytest_django import Settings

from dashboard.ops.supervisor import heartbeat

pytestmark = pytest.mark.django_db
PROGRAMS = ["beat:dashboard+mms", "worker:celery", "worker:mms"]


@pytest.fixture
def signs(live_redis: redis.Redis):
    """Every program has just been heard of."""
    for name in PROGRAMS:
        heartbeat.write(live_redis, name, time.time())
    return live_redis


def put(redis, name: str, seconds_ago: float, worked_seconds_ago: float = 0) -> None:
    now = time.time()
    redis.set(f"heartbeat:{name}", f"{now - seconds_ago} {now - worked_seconds_ago}")


def test_all_is_well_when_every_program_was_heard_of(client: Client, signs) -> None:
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
def test_a_program_that_went_silent_is_named_alone(client: Client, signs, name, label) -> None:
    put(signs, name, seconds_ago=heartbeat.STALE_SECONDS + 1)
    answer = client.get("/healthz")
    assert answer.status_code == 503
    broken = {part: state for part, state in answer.json()["parts"].items() if state != "works"}
    assert broken == {label: "no heartbeat for 13 s"}


def test_a_worker_that_never_came_is_named(client: Client, signs) -> None:
    signs.delete("heartbeat:worker:mms")
    assert "no heartbeat" in client.get("/healthz").json()["parts"]["worker of queue mms"]


def test_a_worker_that_lives_but_takes_no_tasks_is_not_well(client: Client, signs) -> None:
    put(signs, "worker:celery", seconds_ago=0, worked_seconds_ago=heartbeat.IDLE_SECONDS + 5)
    answer = client.get("/healthz")
    assert answer.status_code == 503
    assert "no task completed in 35 s" in answer.json()["parts"]["worker of queue celery"]


def test_idle_workers_are_not_blamed_while_beat_sends_nothing(client: Client, signs) -> None:
    put(signs, "beat:dashboard+mms", seconds_ago=100)
    put(signs, "worker:celery", seconds_ago=0, worked_seconds_ago=100)
    parts = client.get("/healthz").json()["parts"]
    assert parts["worker of queue celery"] == "works"
    assert parts["beat"] != "works"


def test_a_missing_redis_is_named_and_nobody_else_is_blamed(client: Client, settings: Settings, tmp_path: Path) -> None:
    settings.REDIS_URL = f"unix://{tmp_path}/nobody.sock"
    answer = client.get("/healthz")
    assert answer.status_code == 503
    parts = answer.json()["parts"]
    assert parts["redis"] == "not responding"
    assert parts["beat"] == "unknown while Redis isn’t responding"
    assert parts["database"] == "works"


def test_a_browser_gets_lines_to_read(client: Client, signs) -> None:
    answer = client.get("/healthz", headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert answer["content-type"].startswith("text/plain")
    assert b"database: works\n" in answer.content
