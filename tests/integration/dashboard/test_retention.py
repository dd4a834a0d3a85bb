"""Retention of rows in both halves, of logs and routes, and of keys in Redis."""

import os
import subprocess
import threading
import time
import uuid
from datetime import timedelta
from typing import Any

import pytest
import redis
from django.conf import settings
from django.db import connection
from django.utils import timezone

from dashboard.models import OpenSession
from dashboard.ops.supervisor import programs
from deployments import retention
from deployments.live import events
from deployments.models import HostingAccount, Image, Manifest, Operation, RegisteredModel, Service
from deployments.models.operation import Kind, State
from deployments.operations import queue, submit
from mms.gateway import routes
from mms.models import Image as MmsImage
from mms.models import Operation as MmsOperation
from mms.models import Revision
from mms.models import Service as MmsService
from mms.models import State as MmsState
from mms.operations import builds
from mms.operations import retention as mms_retention
from mms.services import route
from tests.doubles.mms import MMS
from tests.site import ROOT, wait_until
from tests.support.lifecycle import account_at, cluster_of, image_of, manifest_of, present, register, registry_of
from tests.support.mms_rows import image_operation
from tests.support.people import make_operation
from tests.support.workshop import make_account, make_image, make_manifest, make_model, make_service

pytestmark = pytest.mark.django_db(transaction=True)
LONG_AGO = timedelta(days=settings.KEEP_OPERATIONS_DAYS + 1)


def ended(row: Any, ago: timedelta = LONG_AGO, state: State = State.SUCCEEDED, **more: Any) -> Operation:
    """Create an operation on the row that was requested and ended `ago`."""
    operation = make_operation(row, state=state, finished_at=timezone.now() - ago, **more)
    Operation.objects.filter(pk=operation.pk).update(requested_at=timezone.now() - ago)
    return operation


def vanished(row: Any, ago: timedelta = LONG_AGO) -> Any:
    type(row).objects.filter(pk=row.pk).update(vanished_at=timezone.now() - ago)
    return row


def left(model: type[Any]) -> set[Any]:
    return set(model.objects.values_list("pk", flat=True))


# --- rows of the dashboard ----------------------------------------------------------------------------------------


def test_an_old_operation_is_deleted_and_the_newest_of_its_row_kept() -> None:
    service = make_service(make_image(make_manifest(make_account())))
    ended(service, LONG_AGO * 3)
    ended(service, LONG_AGO * 2, kind=Kind.UPDATE_SERVICE)
    newest = ended(service, LONG_AGO)
    only = ended(service.image)
    assert retention.delete_old()
    assert left(Operation) == {newest.pk, only.pk}


def test_recently_ended_operations_are_kept() -> None:
    service = make_service(make_image(make_manifest(make_account())))
    recent = ended(service, LONG_AGO - timedelta(days=2))
    newest = ended(service, timedelta(0))
    retention.delete_old()
    assert left(Operation) == {recent.pk, newest.pk}


@pytest.mark.parametrize("state", [State.QUEUED, State.SENDING, State.NOT_STARTED, State.RUNNING, State.UNCERTAIN])
def test_an_open_operation_is_never_deleted(state: State) -> None:
    model = make_model(make_account())
    open_one = ended(model, LONG_AGO * 2, state=state)
    newest = ended(model)
    retention.delete_old()
    assert left(Operation) == {open_one.pk, newest.pk}


def test_a_retry_is_kept_when_the_retried_operation_is_deleted() -> None:
    model = make_model(make_account())
    first = ended(model, LONG_AGO * 2, state=State.FAILED)
    again = ended(model, retry_of=first)
    retention.delete_old()
    assert Operation.objects.get().pk == again.pk
    assert Operation.objects.get().retry_of is None


def test_rows_missing_for_long_are_deleted_with_their_operations_unless_referenced() -> None:
    account = make_account()
    kept, gone = make_model(account, "kept"), make_model(account, "gone")
    manifest = make_manifest(account, kept)
    for row in (kept, gone):
        ended(vanished(row))
    retention.delete_old()
    assert left(RegisteredModel) == {kept.pk}
    assert Operation.objects.get().model == kept
    assert left(Manifest) == {manifest.pk}


def test_a_complete_chain_of_missing_rows_is_deleted_in_one_run() -> None:
    account = make_account()
    model = make_model(account)
    manifest = make_manifest(account, model)
    image = make_image(manifest)
    service = make_service(image)
    for row in (model, manifest, image, service):
        ended(vanished(row))
    retention.delete_old()
    assert not any(map(left, (RegisteredModel, Manifest, Image, Service, Operation)))


def test_a_missing_row_is_kept_while_one_of_its_operations_is_open_or_recent() -> None:
    account = make_account()
    one, other = make_model(account, "a"), make_model(account, "b")
    make_operation(vanished(one), state=State.UNCERTAIN)
    ended(vanished(other), timedelta(days=1))
    retention.delete_old()
    assert left(RegisteredModel) == {one.pk, other.pk}


def test_a_row_that_was_never_created_is_deleted_with_its_failed_operation() -> None:
    image = make_image(make_manifest(make_account()), mms_id=None)
    ended(image, state=State.FAILED)
    young = make_image(present(image.manifest), mms_id=None)
    ended(young, timedelta(days=1), state=State.FAILED)
    Image.objects.update(added_at=timezone.now() - LONG_AGO)
    retention.delete_old()
    assert left(Image) == {young.pk}
    assert Operation.objects.get().image == young


def test_expired_sessions_are_deleted() -> None:
    for name, days in (("over", -1), ("good", 1)):
        now = timezone.now()
        end = now + timedelta(days=days)
        OpenSession.objects.create(session_key=name, expire_date=end, started_at=now, seen_at=now)
    retention.delete_old()
    assert left(OpenSession) == {"good"}


def test_rows_are_checked_once_an_hour_however_often_beat_sends_the_task(live_redis: redis.Redis) -> None:
    model = make_model(make_account())
    retention.prune()
    ended(model, LONG_AGO * 2)
    ended(model)
    retention.prune()
    assert Operation.objects.count() == 2
    assert 0 < live_redis.ttl("claim:retention") <= retention.INTERVAL_SECONDS
    live_redis.flushall()
    retention.prune()
    assert Operation.objects.count() == 1


@pytest.mark.slow
def test_unfinished_work_continues_a_minute_later(live_redis: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(make_account())
    for days in range(5):
        ended(model, LONG_AGO + timedelta(days=days))
    monkeypatch.setattr(retention, "BATCH_ROWS", 2)
    monkeypatch.setattr(retention, "PAUSE_SECONDS", 1.1)
    monkeypatch.setattr(retention, "RUN_SECONDS", 1.0)
    retention.prune()
    assert Operation.objects.count() == 3
    retention.prune()
    assert Operation.objects.count() == 1


@pytest.mark.slow
def test_many_operations_are_deleted_without_delaying_writers(live_redis: redis.Redis) -> None:
    """One row has 5000 operations here. 100,000 take a minute."""
    account = make_account()
    model = make_model(account)
    crowd = [
        Operation(account=account, kind=Kind.REGISTER_MODEL, state=State.FAILED, model=model, requested_by="sam")
        for _ in range(5000)
    ]
    Operation.objects.bulk_create(crowd)
    Operation.objects.update(finished_at=timezone.now() - LONG_AGO, requested_at=timezone.now() - LONG_AGO)
    newest = make_operation(model)
    done = threading.Event()
    waits: list[float] = []

    def write() -> None:
        while not done.wait(0.01):
            before = time.monotonic()
            HostingAccount.objects.filter(pk=account.pk).update(reached_at=timezone.now())
            waits.append(time.monotonic() - before)
        connection.close()

    writer = threading.Thread(target=write)
    writer.start()
    retention.delete_old()
    done.set()
    writer.join()
    assert left(Operation) == {newest.pk}
    assert len(waits) > 10
    assert max(waits) < 2.0, "the lock was held for too long"  # 0.2 s on an idle machine


def test_two_concurrent_runs_delete_correctly() -> None:
    model = make_model(make_account())
    submit = [ended(model, LONG_AGO + timedelta(hours=age)) for age in range(60)]

    def delete() -> None:
        retention.delete_old()
        connection.close()

    threads = [threading.Thread(target=delete) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert left(Operation) == {submit[0].pk}


# --- rows and files of the bundled MMS ----------------------------------------------------------------------------


def mms_ended(operation: MmsOperation, ago: timedelta = LONG_AGO, state: MmsState = MmsState.SUCCEEDED) -> MmsOperation:
    then = timezone.now() - ago
    MmsOperation.objects.filter(pk=operation.pk).update(state=state, created_at=then, ended_at=then)
    if operation.image_id:
        MmsImage.objects.filter(pk=operation.image_id).update(created_at=then)
    return operation


def mms_service(**fields: Any) -> MmsService:
    image = mms_ended(image_operation()).image
    assert image
    MmsImage.objects.filter(pk=image.pk).update(digest="sha256:1")
    return MmsService.objects.create(account=image.account, name="s", image=image, pull_secret="local", **fields)


def rolled_out(service: MmsService, number: int, ago: timedelta, state: str = "stopped") -> MmsOperation:
    then = timezone.now() - ago
    revision = Revision.objects.create(
        service=service,
        number=number,
        image=service.image,
        state=state,
        stopped_at=then if state == "stopped" else None,
    )
    about = {"account": service.account, "service": service, "revision": revision}
    return mms_ended(MmsOperation.objects.create(operation_type="Service", verb="update_service", **about), ago)


def test_the_mms_keeps_the_newest_operation_of_every_resource() -> None:
    service = mms_service()
    rolled_out(service, 1, LONG_AGO * 3)
    rolled_out(service, 2, LONG_AGO * 2)
    newest = rolled_out(service, 3, LONG_AGO, state="active")
    assert mms_retention.delete_old()
    assert left(MmsOperation) == {newest.pk, service.image.operations.get().pk}
    assert list(service.revisions.values_list("number", flat=True)) == [3]


def test_the_number_of_a_deleted_revision_is_not_reused() -> None:
    service = mms_service()
    for number in (1, 2):
        rolled_out(service, number, LONG_AGO * 2)
    MmsOperation.objects.filter(service=service).delete()
    mms_retention.delete_old()
    assert [revision.number for revision in service.revisions.all()] == [2]


@pytest.mark.parametrize("state", [MmsState.NOT_STARTED, MmsState.RUNNING])
def test_an_open_operation_of_the_mms_is_kept_with_its_image(state: MmsState) -> None:
    operation = mms_ended(image_operation(), state=state)
    mms_retention.delete_old()
    assert left(MmsOperation) == {operation.pk}


def test_a_failed_build_is_deleted_and_a_successful_one_kept() -> None:
    failed, built = mms_ended(image_operation(), state=MmsState.FAILED), mms_ended(image_operation())
    recent = mms_ended(image_operation(), timedelta(days=1), state=MmsState.FAILED)
    MmsImage.objects.filter(pk=present(built.image_id)).update(digest="sha256:1")
    mms_retention.delete_old()
    assert left(MmsOperation) == {built.pk, recent.pk}
    assert left(MmsImage) == {built.image_id, recent.image_id} != {failed.image_id}


def test_a_deleted_service_is_removed_when_nothing_of_it_runs() -> None:
    gone, still = mms_service(deleted_at=timezone.now() - LONG_AGO), mms_service(deleted_at=timezone.now() - LONG_AGO)
    recent = mms_service(deleted_at=timezone.now() - timedelta(days=1))
    rolled_out(gone, 1, LONG_AGO)
    rolled_out(still, 1, LONG_AGO, state="active")
    mms_retention.delete_old()
    assert left(MmsService) == {still.pk, recent.pk}
    assert MmsImage.objects.count() == 3, "images remain until they are deleted explicitly"


def test_logs_and_routes_of_deleted_resources_are_removed() -> None:
    service, long_ago = mms_service(), time.time() - (settings.KEEP_LOGS_DAYS + 1) * 86400
    folder = settings.MMS_DIR / "services"
    kept = [builds.log_path("young"), folder / str(service.pk) / "1.log", folder / str(uuid.uuid4()) / "1.log"]
    gone = [builds.log_path("old"), folder / str(uuid.uuid4()) / "1.log"]
    for path in (*kept, *gone):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("line\n")
    for path in (gone[0], gone[1], gone[1].parent, kept[1], kept[1].parent):
        os.utime(path, (long_ago, long_ago))
    for service_id in (str(service.pk), "no-service"):
        routes.write(route.directory(), routes.Route(service_id, "s", 1, "unix:/x"))
    (route.directory() / ".half.new").write_text("{")
    mms_retention.delete_old()
    assert [path.exists() for path in (*kept, *gone)] == [True, True, True, False, False]
    assert not gone[1].parent.exists()
    assert [path.name for path in route.directory().iterdir()] == [f"{service.pk}.json"]


def test_the_mms_checks_its_rows_once_an_hour() -> None:
    done = settings.RUN_DIR / "retention.done"
    done.unlink(missing_ok=True)
    mms_retention.prune()
    failed = mms_ended(image_operation(), state=MmsState.FAILED)
    mms_retention.prune()
    assert left(MmsOperation) == {failed.pk}
    os.utime(done, (0, 0))
    mms_retention.prune()
    assert left(MmsOperation) == set()


# --- Redis --------------------------------------------------------------------------------------------------------

CAPPED = {
    b"live": "10 000 entries",
    b"celery": "dashboard.ops.supervisor.beat.MAX_QUEUE_LENGTH and deployments.operations.queue.MAX_QUEUE_LENGTH",
    b"mms": "dashboard.ops.supervisor.beat.MAX_QUEUE_LENGTH, and one message per open operation",
    b"_kombu.binding.celery": "one member",
    b"_kombu.binding.mms": "one member",
    b"_kombu.binding_permanent.celery": "one member",
    b"_kombu.binding_permanent.mms": "one member",
    b"unacked": "what a worker has in hand; given back an hour after its death",
    b"unacked_index": "the same",
}


def program(name: str) -> "subprocess.Popen[bytes]":
    """Start the program as the site does, with the database and the Redis of the tests."""
    environment = os.environ | {"DATABASE_URL": f"sqlite:///{settings.DATABASES['default']['NAME']}"}
    command = next(program.command for program in programs.programs() if program.name == name)
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait(10)


@pytest.mark.slow
def test_every_key_that_a_busy_site_leaves_in_redis_expires_or_is_capped(mms: MMS, live_redis: redis.Redis) -> None:
    account = account_at(mms.url)
    worker, beat = program("worker"), program("beat")
    try:
        do = [
            register(account),
            submit.create_image(account, "ann", manifest=manifest_of(account), registry=registry_of(account)),
            submit.create_service(account, "ann", name="s", image=image_of(account), cluster=cluster_of(account)),
        ]
        events.record_interest(f"account:{account.pk}")
        events.record_log_interest("operation", do[1].pk)
        wait_until(lambda: len(mms.calls("POST")) == 3, 60, "a worker to send everything")
        wait_until(lambda: mms.run() or mms.end() or _over(do), 60, "a whole job", every=0.3)
        wait_until(lambda: live_redis.zcard("interest") or live_redis.exists("claim:retention"), 90, "the hourly check")
    finally:
        end(worker)
        end(beat)
    keys = set(live_redis.scan_iter(count=1000))
    assert {b"live", f"live:operation:{do[0].pk}".encode(), b"heartbeat:worker:celery"} <= keys
    assert {key for key in keys if live_redis.ttl(key) < 0} <= set(CAPPED), "these keys don't expire and aren't limited"
    assert {key for key in keys if live_redis.ttl(key) > events.HASH_TTL_SECONDS} == set()


def _over(do: list[Operation]) -> bool:
    return not Operation.objects.filter(pk__in=[one.pk for one in do], finished_at=None).exists()


def test_recorded_interest_expires(live_redis: redis.Redis) -> None:
    events.record_interest("account:1")
    assert 0 < live_redis.ttl("interest") <= events.MAX_INTEREST_SECONDS


@pytest.mark.slow
def test_beat_adds_nothing_to_a_queue_without_consumers(live_redis: redis.Redis) -> None:
    """With one message a second, a night without a worker would add 40,000."""
    for queue_name in ("celery", "mms"):
        live_redis.rpush(queue_name, *["{}"] * 97)
    beat = program("beat")
    try:
        wait_until(lambda: live_redis.llen("celery") == live_redis.llen("mms") == 100, 30, "beat to fill the queues")
        alive = live_redis.get("heartbeat:beat:dashboard+mms")
        wait_until(lambda: live_redis.get("heartbeat:beat:dashboard+mms") != alive, 20, "a later heartbeat")
        assert (live_redis.llen("celery"), live_redis.llen("mms")) == (100, 100)
        live_redis.delete("celery")
        wait_until(lambda: live_redis.llen("celery"), 10, "beat to send again when messages are consumed")
    finally:
        end(beat)


def test_requests_for_a_refresh_do_not_fill_the_queue(live_redis: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "MAX_QUEUE_LENGTH", 3)
    for _ in range(5):
        queue.hint_refresh()
    assert live_redis.llen("celery") == 3
