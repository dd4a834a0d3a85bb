"""The pipeline in a real Celery worker process, including killed workers."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import current_app
from django.conf import settings

from dashboard.ops.supervisor import programs
from deployments.accounts.call_pool import MAX_CALLS_PER_ACCOUNT
from deployments.live import events
from deployments.models import HostingAccount, Operation
from deployments.models.operation import State
from deployments.operations import submit
from tests.doubles import mms as faults
from tests.doubles.mms import MMS
from tests.faults.verbs import VERBS, furnished
from tests.support.lifecycle import account_at, later, manifest_of, present, register, registry_of

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
ROOT = Path(__file__).resolve().parent.parent.parent.parent


def start_worker() -> "subprocess.Popen[bytes]":
    """Start a worker as the site does, with the tests' database and Redis."""
    environment = os.environ | {"DATABASE_URL": f"sqlite:///{settings.DATABASES['default']['NAME']}"}
    program = next(program for program in programs.programs() if program.name == "worker")
    return subprocess.Popen(
        program.command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


@pytest.fixture
def worker(live_redis: redis.Redis) -> "Iterator[subprocess.Popen[bytes]]":
    process = start_worker()
    yield process
    process.kill()
    process.wait(10)


def wait_for(true: Callable[[], bool], seconds: float = 20) -> None:
    """Wait, and send the periodic tasks as Celery beat would."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        current_app.send_task("deployments.poll_operations")
        current_app.send_task("deployments.sweep_operations")
        time.sleep(0.2)


def test_an_image_is_built_by_a_real_worker(
    account: HostingAccount, mms: MMS, worker: "subprocess.Popen[bytes]", live_redis: redis.Redis
) -> None:
    operation = submit.create_image(account, "ann", manifest=manifest_of(account), registry=registry_of(account))

    def state() -> str:
        operation.refresh_from_db()
        return operation.state

    wait_for(lambda: state() == State.NOT_STARTED)
    mms.run()
    wait_for(lambda: state() == State.RUNNING)
    mms.end()
    wait_for(lambda: state() == State.SUCCEEDED)
    assert mms.effects["images"] == 1
    entries: Any = live_redis.xrange(events.STREAM)
    states = [events.decode(fields).badge for _, fields in entries]
    told = [badge.state for badge in states if badge and badge.key == f"operation-{operation.pk}"]
    assert told == ["queued", "sending", "not_started", "running", "succeeded"]


def test_a_worker_killed_before_recording_the_response_repeats_nothing(
    account: HostingAccount, mms: MMS, worker: "subprocess.Popen[bytes]"
) -> None:
    mms.plan("POST", "models", faults.effect_then_hang(30))
    operation = register(account)
    wait_for(lambda: mms.effects["models"] == 1)
    worker.kill()
    worker.wait(10)
    later(operation, 100)
    successor = start_worker()
    try:
        wait_for(lambda: Operation.objects.get().state == State.SUCCEEDED)
    finally:
        successor.kill()
        successor.wait(10)
    assert len(mms.calls("POST")) == 1
    assert present(Operation.objects.get().model).mms_id in mms.models


@pytest.mark.parametrize("idempotent", [False, True])
def test_a_worker_killed_during_all_verbs_loses_and_repeats_nothing(
    idempotent: bool, live_redis: redis.Redis, worker: "subprocess.Popen[bytes]"
) -> None:
    with MMS(extensions=idempotent) as mms:
        account = furnished(account_at(mms.url), mms)
        for method in ("POST", "PUT", "DELETE"):
            mms.plan(method, "/", faults.effect_then_hang(30), times=MAX_CALLS_PER_ACCOUNT)
        asked = [verb.ask(account) for verb in VERBS]
        wait_for(lambda: mms.effects.total() == MAX_CALLS_PER_ACCOUNT)
        worker.kill()
        worker.wait(10)
        mms.heal()
        for operation in asked:
            later(operation, 100)
        successor = start_worker()

        def over() -> bool:
            mms.end()
            return not Operation.objects.exclude(state=State.SUCCEEDED).exists()

        try:
            wait_for(over, 40)
        finally:
            successor.kill()
            successor.wait(10)
        assert mms.effects.total() == len(VERBS)
        assert not mms.repeated
