"""Operations of the bundled MMS: run once, taken over from dead workers, canceled on request, and always ended."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
import redis
from django.conf import settings as django_settings
from django.db import connection, transaction
from django.utils import timezone
from pytest_django import Settings

from mms.models import Model, Operation, Revision, Service, State
from mms.operations import builds, leases, run
from tests.support.clock import quiet_seconds
from tests.support.mms_rows import file_server, image_operation

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _loopback_is_allowed(settings: Settings) -> None:
    settings.MMS_FETCH_ALLOW_PRIVATE = True


@pytest.fixture
def files() -> Iterator[str]:
    with file_server() as url:
        yield url


def work(operation: Operation) -> None:
    """Do a worker's work, and close the database connection of its thread afterwards."""
    try:
        run.run(str(operation.id))
    finally:
        connection.close()


def wait_until_running(operation: Operation) -> None:
    until = time.monotonic() + 20
    log = builds.log_path(operation.image_id)
    while not (log.exists() and log.read_text() and builders_of(operation)):
        assert time.monotonic() < until, "the build did not begin"
        time.sleep(0.05)


def builders_of(operation: Operation) -> list[int]:
    """Return the processes that work in the temporary folder of this build."""
    found = []
    for process in psutil.process_iter(["pid", "environ"]):
        if f"build-{operation.image_id}-" in ((process.info["environ"] or {}).get("TMPDIR") or ""):
            found.append(process.info["pid"])
    return found


def service_operation(**fields: object) -> Operation:
    image = image_operation(state=State.SUCCEEDED).image
    assert image
    service = Service.objects.create(account=image.account, name="s", image=image, pull_secret="local")
    revision = Revision.objects.create(service=service, number=1, image=image)
    return Operation.objects.create(
        account=image.account,
        operation_type="Service",
        verb="create_service",
        service=service,
        revision=revision,
        **fields,
    )


def test_a_build_ends_with_the_image_and_deletes_the_password(files: str) -> None:
    operation = image_operation(files)
    work(operation)
    operation.refresh_from_db()
    assert operation.state == State.SUCCEEDED, operation.error
    assert operation.ended_at
    assert operation.claimed_until is None
    assert operation.image
    assert operation.image.digest.startswith("sha256:")
    assert operation.image.registry_password is None
    assert builds.log_path(operation.image_id).read_text()
    assert not list(Path(django_settings.TMP_DIR).glob("build-*"))


def test_an_operation_delivered_repeatedly_runs_once(files: str) -> None:
    operation = image_operation(files)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, [operation] * 4))
    operation.refresh_from_db()
    assert (operation.state, operation.attempts) == (State.SUCCEEDED, 1)
    work(operation)
    operation.refresh_from_db()
    assert operation.attempts == 1


def test_an_operation_leased_by_a_running_worker_is_not_taken_over(files: str) -> None:
    held_until = timezone.now() + timedelta(seconds=5)
    operation = image_operation(files, state=State.RUNNING, claimed_until=held_until, attempts=1)
    work(operation)
    operation.refresh_from_db()
    assert (operation.state, operation.claimed_until) == (State.RUNNING, held_until)


@pytest.mark.slow
def test_an_operation_of_a_dead_worker_is_taken_over(files: str) -> None:
    long_ago = timezone.now() - timedelta(seconds=1)
    operation = image_operation(files, state=State.RUNNING, claimed_until=long_ago, attempts=1)
    work(operation)
    operation.refresh_from_db()
    assert (operation.state, operation.attempts) == (State.SUCCEEDED, 2)


def test_an_operation_fails_after_repeated_deaths_of_its_workers() -> None:
    operation = image_operation(state=State.RUNNING, attempts=run.MAX_ATTEMPTS)
    work(operation)
    operation.refresh_from_db()
    assert operation.state == State.FAILED
    assert operation.error
    assert operation.error["code"] == "WorkerLost"


def test_a_worker_that_lost_its_lease_writes_nothing() -> None:
    operation = image_operation()
    late = leases.acquire(str(operation.id))
    assert late
    Operation.objects.filter(pk=operation.pk).update(claimed_until=timezone.now() - timedelta(seconds=1))
    other = leases.acquire(str(operation.id))
    assert other
    assert not late.release(state=State.FAILED)
    late.renew()
    assert late.lost.is_set()
    assert other.release(state=State.SUCCEEDED)


def test_a_lease_is_renewed_during_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "CHECK_INTERVAL_SECONDS", 0.05)
    monkeypatch.setattr(leases, "LEASE_DURATION", timedelta(seconds=0.4))
    operation = image_operation()
    claim = leases.acquire(str(operation.id))
    assert claim
    with claim.renewing():
        time.sleep(1)
        assert leases.acquire(str(operation.id)) is None
    assert not claim.lost.is_set()


def test_a_lease_of_a_running_local_worker_is_not_released() -> None:
    operation = image_operation()
    claim = leases.acquire(str(operation.id))
    assert claim
    with claim.pid_file():
        leases.release_dead_workers()
        operation.refresh_from_db()
        assert operation.claimed_until == claim.until
    assert not list((django_settings.MMS_DIR / "claims").iterdir())


def test_the_mark_of_a_dead_worker_does_not_release_the_next_lease() -> None:
    operation = image_operation()
    first = leases.acquire(str(operation.id))
    assert first
    dead = django_settings.MMS_DIR / "claims" / f"{operation.id}.{first.attempt}"
    dead.parent.mkdir(exist_ok=True)
    dead.touch()
    Operation.objects.filter(pk=operation.pk).update(claimed_until=timezone.now())
    second = leases.acquire(str(operation.id))
    assert second
    leases.release_dead_workers()
    operation.refresh_from_db()
    assert operation.claimed_until == second.until
    assert not dead.exists()


def test_a_lease_works_without_a_mark_if_none_can_be_written(settings: Settings, tmp_path: Path) -> None:
    operation = image_operation()
    claim = leases.acquire(str(operation.id))
    settings.MMS_DIR = tmp_path / "missing"
    assert claim
    with claim.pid_file():
        assert claim.release(state=State.SUCCEEDED)


def test_the_setting_limits_concurrent_builds(settings: Settings) -> None:
    settings.MMS_BUILDS = 1
    first, second = image_operation(), image_operation()
    claim = leases.acquire(str(first.id))
    assert claim
    assert leases.acquire(str(second.id)) is None
    claim.release(state=State.SUCCEEDED)
    assert leases.acquire(str(second.id))


def test_the_sweep_queues_abandoned_operations(live_redis: redis.Redis, settings: Settings) -> None:
    settings.MMS_BUILDS = 2
    image_operation(state=State.RUNNING, claimed_until=timezone.now() + timedelta(seconds=9))
    image_operation(state=State.SUCCEEDED)
    waiting = [image_operation() for _ in range(3)]
    abandoned = service_operation(state=State.RUNNING, claimed_until=timezone.now() - timedelta(seconds=1))
    run.sweep()
    messages = str(live_redis.lrange("mms", 0, -1))
    handed_out = {str(operation.id) for operation in [*waiting, abandoned] if str(operation.id) in messages}
    assert handed_out == {str(waiting[0].id), str(abandoned.id)}, "one build is free, services do not wait for builds"


def test_accepting_does_not_wait_for_an_unavailable_queue() -> None:
    operation = image_operation()
    twin = Operation(account=operation.account, operation_type="Image", verb="create_image", image=operation.image)
    started = time.monotonic()
    with transaction.atomic():
        run.accept(twin)
    assert quiet_seconds(time.monotonic() - started) < 1
    assert Operation.objects.filter(pk=twin.pk, state=State.NOT_STARTED).exists()


def test_an_operation_that_has_not_started_is_canceled_immediately() -> None:
    for operation in (image_operation(), service_operation()):
        assert run.cancel(operation)
        operation.refresh_from_db()
        assert operation.state == State.CANCELED
        assert operation.ended_at
        work(operation)
        operation.refresh_from_db()
        assert operation.state == State.CANCELED


def test_a_running_service_operation_is_not_canceled() -> None:
    operation = service_operation(state=State.RUNNING, claimed_until=timezone.now() + timedelta(seconds=9))
    assert not run.cancel(operation)


@pytest.mark.slow
def test_a_running_build_is_stopped_with_all_its_processes(files: str) -> None:
    operation = image_operation(files, "slow")
    worker = threading.Thread(target=work, args=[operation])
    worker.start()
    wait_until_running(operation)
    assert builders_of(operation)
    assert run.cancel(operation)
    worker.join(15)
    operation.refresh_from_db()
    assert operation.state == State.CANCELED
    assert not builders_of(operation)


@pytest.mark.slow
def test_a_build_has_a_time_limit(files: str, settings: Settings) -> None:
    settings.MMS_BUILD_TIMEOUT = 1
    operation = image_operation(files, "slow")
    work(operation)
    operation.refresh_from_db()
    assert operation.state == State.FAILED
    assert operation.error
    assert operation.error["code"] == "BuildTimeout"
    assert not builders_of(operation)


WORKER = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "dashboard.settings"
import django; django.setup()
from mms.operations import run
run.run(sys.argv[1])
"""


@pytest.mark.slow
def test_a_build_ends_with_its_killed_worker_and_another_worker_finishes(files: str) -> None:
    operation = image_operation(files, "slow")
    environment = {
        **os.environ,
        "DATABASE_URL": f"sqlite:///{connection.settings_dict['NAME']}",
        "MMS_FETCH_ALLOW_PRIVATE": "true",
    }
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(operation.id)], env=environment)
    wait_until_running(operation)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    until = time.monotonic() + 5
    while builders_of(operation):
        assert time.monotonic() < until, "the build outlived its worker"
        time.sleep(0.05)
    operation.refresh_from_db()
    assert operation.state == State.RUNNING
    assert operation.claimed_until
    assert operation.claimed_until < timezone.now() + leases.LEASE_DURATION, "and that ends"
    manifest = operation.image.manifest  # type: ignore[union-attr]
    Model.objects.filter(id__in=manifest.resolved_model_ids).update(url=f"{files}/quick")
    leases.release_dead_workers()
    assert not list((django_settings.MMS_DIR / "claims").iterdir())
    work(operation)
    operation.refresh_from_db()
    assert operation.state == State.SUCCEEDED
    assert not list(Path(django_settings.TMP_DIR).glob(f"build-{operation.image_id}-*"))


def test_the_build_sees_no_secret_of_the_site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("SECRET_KEY", "DATABASE_URL", "REDIS_URL", "SOME_TOKEN", "X_PASSWORD"):
        monkeypatch.setenv(name, "unique-value")
    monkeypatch.setenv("UV_INDEX_URL", "https://someone.example/simple")
    monkeypatch.setenv("PIP_INDEX_URL", "https://someone.example/simple")
    monkeypatch.setenv("https_proxy", "http://proxy.example")
    environment = builds.environment(tmp_path)
    assert "unique-value" not in environment.values()
    assert not {"UV_INDEX_URL", "PIP_INDEX_URL"} & environment.keys()
    assert environment["https_proxy"] == "http://proxy.example"


def test_an_operation_ends_even_if_no_database_can_store_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL rejects NUL and lone surrogates. The operation would be retried until its attempts are used up."""

    def fail(*_: object) -> None:
        raise builds.BuildError("Log", "it said \0", [{"code": "Log", "message": "\0 \ud800 \\u0000", "target": "log"}])

    monkeypatch.setattr(builds, "build", fail)
    operation = image_operation()
    work(operation)
    operation.refresh_from_db()
    assert operation.error == {
        "code": "Log",
        "message": "it said ?",
        "details": [{"code": "Log", "message": "? ? \\u0000", "target": "log"}],
    }


def test_an_operation_is_queued_after_idle_connections_were_closed(live_redis: redis.Redis) -> None:
    """For example, Redis was restarted, or a firewall dropped them."""
    for number in range(1, 4):
        run.enqueue(uuid4())
        assert live_redis.llen("mms") == number
        live_redis.client_kill_filter(_type="normal", skipme=True)
