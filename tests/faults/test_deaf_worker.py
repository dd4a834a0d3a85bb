"""A worker that is connected, lives, and gets no tasks: found out and healed, whatever the cause."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from celery import current_app
from django.conf import settings

from dashboard.ops.supervisor import heartbeat, programs
from dashboard.ops.supervisor.watchdog import DEAF, HOPELESS, Watch
from tests.faults.deafening import SOONER
from tests.twins import twins

ROOT = Path(__file__).resolve().parents[2]
BEAT = "beat:dashboard+mms"
SIGN = "heartbeat:worker:celery"


def test_a_worker_is_deaf_only_while_tasks_are_there_to_be_had() -> None:
    watch = Watch(now=100.0, worked_at=0.0, looped_at=100.0)
    assert not watch.deaf, "nothing is to be had"
    watch.waiting_since = 100.0 - DEAF - 1
    assert watch.deaf
    watch.reconnected_at = 99.0
    assert not watch.deaf, "it has just connected anew"
    watch.worked_at = 99.0
    assert watch.silence() == 1.0


def test_a_worker_whose_loop_stands_still_is_hopeless_though_its_threads_work() -> None:
    watch = Watch(now=100.0, worked_at=100.0, looped_at=0.0, waiting_since=100.0 - HOPELESS - 1)
    assert watch.hopeless
    watch.looped_at = 99.0
    assert not watch.hopeless


@pytest.fixture
def times_faster(request: pytest.FixtureRequest) -> int:
    """How many times sooner than it does otherwise the worker loses patience."""
    return int(request.param)


@pytest.fixture
def worker(live_redis: redis.Redis, times_faster: int) -> "Iterator[subprocess.Popen[bytes]]":
    program = next(program for program in programs.programs() if program.name == "worker")
    command = [
        word.replace("deployments.tasks", "deployments.tasks,tests.faults.deafening") for word in program.command
    ]
    log = (settings.LOG_DIR / "deaf-worker.log").open("wb")
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {SOONER: str(times_faster)}, stdout=log, stderr=log)
    yield process
    process.kill()
    process.wait(10)


class Beat:
    """Plays beat: a sign of life, and a task every half second."""

    def __init__(self, link: redis.Redis) -> None:
        self.link = link

    def until(self, true: Callable[[], bool], seconds: float) -> float:
        """Seconds until it is true."""
        began = time.monotonic()
        while not true():
            assert time.monotonic() - began < seconds, (settings.LOG_DIR / "deaf-worker.log").read_text()
            heartbeat.write(self.link, BEAT, time.time())
            current_app.send_task("tests.answer")
            time.sleep(0.5)
        return time.monotonic() - began

    def worked_since(self, moment: float) -> bool:
        """Whether the worker says that it has finished a task since then."""
        sign = heartbeat.read(self.link, ["worker:celery"])["worker:celery"]
        return sign is not None and sign.worked_at > moment


@pytest.mark.slow
@twins("times_faster", 5, 1, indirect=True)
def test_a_deaf_worker_listens_again_without_being_restarted(
    live_redis: redis.Redis, worker: "subprocess.Popen[bytes]", times_faster: int, record: dict[str, object]
) -> None:
    beat, began = Beat(live_redis), time.time()
    beat.until(lambda: beat.worked_since(began), 30)
    current_app.send_task("tests.deafen")
    time.sleep(4 / times_faster)  # what it had taken before is done
    deaf_at = time.time()
    took = beat.until(lambda: beat.worked_since(deaf_at), 60)
    record["seconds until it listened again"] = round(took + 4 / times_faster, 1)
    assert took > DEAF / times_faster / 2, "it was not deaf at all"
    assert worker.poll() is None


@pytest.mark.slow
@twins("times_faster", 5, 1, indirect=True)
def test_a_worker_that_stays_deaf_ends_so_that_another_can_take_its_place(
    live_redis: redis.Redis, worker: "subprocess.Popen[bytes]", times_faster: int, record: dict[str, object]
) -> None:
    beat, began = Beat(live_redis), time.time()
    beat.until(lambda: beat.worked_since(began), 30)
    current_app.send_task("tests.deafen_for_good")
    took = beat.until(lambda: worker.poll() is not None, HOPELESS + 30)
    record["seconds until it had ended"] = round(took, 1)
    assert worker.returncode == 1
