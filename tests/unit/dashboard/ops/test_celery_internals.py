"""Undocumented names of Celery and Kombu that the heartbeat step and the scheduler use.

When one of these tests fails after an upgrade, compare dashboard/celery.py, ops/supervisor/beat.py and
tests/faults/deafening.py with the new release before you change the test.
"""

import inspect
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import celery
import pytest
from celery import bootsteps, current_app, signals
from celery.beat import Scheduler
from celery.utils.imports import symbol_by_name
from celery.worker import WorkController, state
from celery.worker.components import Timer
from kombu.asynchronous.timer import Timer as KombuTimer
from kombu.transport.redis import Channel

from dashboard.celery import HeartbeatStep
from tests.site import ROOT


@pytest.mark.parametrize("package", ["celery", "kombu"])
def test_the_installed_release_is_the_pinned_one(package: str) -> None:
    assert f"{package}=={version(package)}" in (ROOT / "requirements/base.txt").read_text().split()


def test_every_worker_of_the_application_has_the_step() -> None:
    assert HeartbeatStep in current_app.steps["worker"]
    assert issubclass(HeartbeatStep, bootsteps.StartStopStep)
    assert {symbol_by_name(name) for name in HeartbeatStep.requires} == {Timer}


def test_a_worker_has_the_attributes_that_the_step_reads() -> None:
    worker = WorkController(app=current_app._get_current_object(), concurrency=3, pool="solo", quiet=True)
    assert worker.concurrency == 3
    assert "celery" in worker.app.amqp.queues.consume_from
    assert isinstance(len(state.active_requests), int)
    assert list(inspect.signature(KombuTimer.call_repeatedly).parameters)[:3] == ["self", "secs", "fun"]
    assert signals.task_prerun.receivers is not None
    assert signals.task_postrun.receivers is not None


def test_the_scheduler_sends_every_task_through_apply_entry() -> None:
    assert list(inspect.signature(Scheduler.apply_entry).parameters) == ["self", "entry", "producer"]
    assert "self.apply_entry(" in inspect.getsource(Scheduler.tick)


def test_a_task_is_routed_to_a_named_queue() -> None:
    assert current_app.amqp.router.route({}, "mms.watch_services")["queue"].name == "mms"
    assert current_app.amqp.router.route({}, "deployments.poll_operations")["queue"].name == "celery"


def test_a_channel_requests_each_message_with_brpop_start() -> None:
    assert callable(Channel._brpop_start)


def test_celery_uses_its_interactive_shell_in_one_place() -> None:
    """celery_command.py replaces click-repl, to save memory."""
    source = (Path(celery.__file__).parent / "bin" / "amqp.py").read_text()
    assert source.count("register_repl") == 2, "its import from click_repl, and one call"
    code = (
        "import atexit, sys; from dashboard.ops.startup import celery_command; sys.argv[1:] = ['report']; "
        "atexit.register(lambda: print(*sys.modules)); celery_command.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "software -> celery:" in done.stdout
    assert "celery.bin.amqp" in done.stdout.split()
    assert "prompt_toolkit" not in done.stdout
