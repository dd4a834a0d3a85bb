"""A worker that is running and connected but receives no tasks reconnects or is restarted, whatever the cause."""

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
from dashboard.ops.supervisor.watchdog import STALLED_SECONDS, UNRECOVERABLE_SECONDS, WorkerActivity
from tests.faults.deafening import SPEED_UP
from tests.support.clock import quiet_seconds
from tests.twins import twins

ROOT = Path(__file__).resolve().parents[2]
BEAT = "beat:dashboard+mms"
SIGN = "heartbeat:worker:celery"


def test_a_worker_counts_as_stalled_only_while_messages_wait() -> None:
    activity = WorkerActivity(now=100.0, task_activity_at=0.0, loop_tick_at=100.0)
    assert not activity.is_stalled, "the queue is empty"
    activity.waiting_since = 100.0 - STALLED_SECONDS - 1
    assert activity.is_stalled
    activity.reconnected_at = 99.0
    assert not activity.is_stalled, "it has just reconnected"
    activity.task_activity_at = 99.0
    assert activity.stalled_seconds() == 1.0


def test_a_worker_with_a_hanging_event_loop_is_unrecoverable_although_its_threads_work() -> None:
    activity = WorkerActivity(now=100.0, task_activity_at=100.0, loop_tick_at=0.0)
    activity.waiting_since = 100.0 - UNRECOVERABLE_SECONDS - 1
    assert activity.is_unrecoverable
    activity.loop_tick_at = 99.0
    assert not activity.is_unrecoverable


@pytest.fixture
def times_faster(request: pytest.FixtureRequest) -> int:
    """Return by which factor the watchdog's limits are shortened."""
    return int(request.param)


@pytest.fixture
def worker(live_redis: redis.Redis, times_faster: int) -> "Iterator[subprocess.Popen[bytes]]":
    program = next(program for program in programs.programs() if program.name == "worker")
    command = [
        word.replace("deployments.tasks", "deployments.tasks,tests.faults.deafening") for word in program.command
    ]
    log = (settings.LOG_DIR / "stalled-worker.log").open("wb")
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {SPEED_UP: str(times_faster)}, stdout=log, stderr=log
    )
    yield process
    process.kill()
    process.wait(10)


class Beat:
    """Act as the scheduler: a heartbeat and a task every half second."""

    def __init__(self, link: redis.Redis) -> None:
        self.link = link

    def run_until(self, condition: Callable[[], bool], seconds: float) -> float:
        """Run until `condition` returns True. Return the seconds it took."""
        began = time.monotonic()
        while not condition():
            assert quiet_seconds(time.monotonic() - began) < seconds, (
                settings.LOG_DIR / "stalled-worker.log"
            ).read_text()
            heartbeat.write(self.link, BEAT, time.time())
            current_app.send_task("tests.answer")
            time.sleep(0.5)
        return time.monotonic() - began

    def has_completed_task_since(self, moment: float) -> bool:
        """Return True if the worker's heartbeat reports a task completed after `moment`."""
        last = heartbeat.read(self.link, ["worker:celery"])["worker:celery"]
        return last is not None and last.task_completed_at > moment


@pytest.mark.slow
@twins("times_faster", 5, 1, indirect=True)
def test_a_stalled_worker_recovers_without_a_restart(
    live_redis: redis.Redis, worker: "subprocess.Popen[bytes]", times_faster: int, record: dict[str, object]
) -> None:
    beat, began = Beat(live_redis), time.time()
    beat.run_until(lambda: beat.has_completed_task_since(began), 30)
    current_app.send_task("tests.deafen")
    time.sleep(4 / times_faster)  # until it has finished the tasks it already received
    stalled_at = time.time()
    took = beat.run_until(lambda: beat.has_completed_task_since(stalled_at), 60)
    record["seconds until it took tasks again"] = round(took + 4 / times_faster, 1)
    assert took > STALLED_SECONDS / times_faster / 2, "the worker never stalled"
    assert worker.poll() is None


@pytest.mark.slow
@twins("times_faster", 5, 1, indirect=True)
def test_a_worker_that_stays_stalled_exits_to_be_restarted(
    live_redis: redis.Redis, worker: "subprocess.Popen[bytes]", times_faster: int, record: dict[str, object]
) -> None:
    beat, began = Beat(live_redis), time.time()
    beat.run_until(lambda: beat.has_completed_task_since(began), 30)
    current_app.send_task("tests.deafen_permanently")
    took = beat.run_until(lambda: worker.poll() is not None, UNRECOVERABLE_SECONDS + 30)
    record["seconds until it exited"] = round(took, 1)
    assert worker.returncode == 1
