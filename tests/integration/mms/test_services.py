"""Roll-outs, deletions and the watch, with real rows, supervisord and processes, and the gateway under load."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from http.client import HTTPConnection

import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone
from pytest_django import Settings

from mms import services
from mms.engines import base
from mms.engines.base import EngineRefusedError, Health
from mms.engines.process import program
from mms.engines.process.program import Program
from mms.gateway import routes
from mms.models import Account, Image, Manifest, Operation, Revision, Service, State
from mms.services import rollout
from mms.services.engine import process_engine, revision_spec
from mms.services.rollout import stop_drained
from mms.services.route import directory
from mms.system.locks import locked
from tests.ports import free_port
from tests.supervised import ECHO, Site, make_image, wait_until
from tests.support.clock import quiet_seconds
from tests.support.lifecycle import present

LOCAL = json.dumps({"clusters": [{"name": "x", "cluster": {"server": "process://local"}}]})
SLEEPER = "import time\ndef init(): pass\ndef run(body):\n    time.sleep(float(body))\n    return 'slept'\n"
BROKEN = "def init(): raise ValueError('no such weights')\ndef run(body): pass\n"

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Run supervisord in the folder of the test settings."""
    with Site(settings.DATA_DIR) as site:
        yield site


@pytest.fixture
def account(site: Site, db: None) -> Iterator[Account]:
    """Return an account. Everything that runs at the end of the test is stopped."""
    yield Account.objects.create(subscription="local", resource_group="local", name="local")
    for service_id, number in process_engine().running():
        process_engine().remove(service_id, number)


def make_service(account: Account, name: str = "iris", **fields: object) -> Service:
    manifest = Manifest.objects.create(account=account, model_ids=[], assets=[], runtime_type="Python")
    image = Image.objects.create(account=account, manifest=manifest, registry_location="oci://local")
    values = {"kube_config": LOCAL, "pull_secret": "local", "primary_key": "one", "secondary_key": "two", **fields}
    return Service.objects.create(account=account, name=name, image=image, **values)


def asked(service: Service, driver: str = ECHO) -> Operation:
    """Create the operation that rolls out the next revision of the service with a new image, as the API does."""
    digest = make_image(process_engine().store, driver)
    image = Image.objects.create(
        account=service.account, manifest=service.image.manifest, registry_location="oci://local", digest=digest
    )
    number = service.revisions.count() + 1
    revision = Revision.objects.create(service=service, number=number, image=image)
    verb = "update_service" if number > 1 else "create_service"
    return Operation.objects.create(
        account=service.account, operation_type="Service", verb=verb, service=service, revision=revision,
        state=State.RUNNING,
    )  # fmt: skip


def roll_out(service: Service, driver: str = ECHO) -> Revision:
    operation = asked(service, driver)
    services.roll_out(operation)
    return ended(operation)


def watch_until(service: Service, numbers: set[int]) -> None:
    """Run the watch until exactly these revisions are running."""

    def is_done() -> bool:
        services.watch()
        return running(service) == numbers

    wait_until(is_done)


def ended(operation: Operation, state: str = State.SUCCEEDED) -> Revision:
    Operation.objects.filter(pk=operation.pk).update(state=state)
    assert operation.revision_id
    return Revision.objects.get(pk=operation.revision_id)


def route_of(service: Service) -> routes.Route | None:
    return routes.read(directory(), str(service.pk))


def states(service: Service) -> list[str]:
    return list(service.revisions.order_by("number").values_list("state", flat=True))


def running(service: Service) -> set[int]:
    return {number for service_id, number in process_engine().running() if service_id == str(service.pk)}


def healthy(service: Service, number: int) -> bool:
    return process_engine().observe(str(service.pk), number).health == Health.HEALTHY


def name_of(service: Service, number: int) -> str:
    return Program.for_revision(settings.RUN_DIR, str(service.pk), number).name


# --- roll out ---------------------------------------------------------------------------------------------------------


def test_a_first_roll_out_ends_with_a_healthy_service_and_its_route(account: Account) -> None:
    service = make_service(account)
    revision = roll_out(service)
    service.refresh_from_db()
    assert (revision.state, service.health, service.image_id) == ("active", "healthy", revision.image_id)
    assert revision.activated_at
    route = route_of(service)
    assert route
    assert (route.address, route.revision) == (revision.address, 1)
    assert len(route.key_digests) == 2


@pytest.mark.slow
def test_an_update_stops_the_old_revision_after_the_switch(account: Account) -> None:
    service = make_service(account)
    roll_out(service)
    second = roll_out(service)
    route = route_of(service)
    assert route
    assert route.address == second.address
    assert states(service) == ["stopped", "active"]
    assert running(service) == {2}


@pytest.mark.slow
def test_a_driver_that_fails_leaves_the_old_revision_serving_and_the_reason_in_the_error(account: Account) -> None:
    service = make_service(account)
    first = roll_out(service)
    operation = asked(service, BROKEN)
    began = time.monotonic()
    with pytest.raises(services.RolloutError) as failure:
        services.roll_out(operation)
    assert quiet_seconds(time.monotonic() - began) < 3, "an init() that failed is not tried again"
    assert failure.value.code == "ServiceCrashed"
    assert str(failure.value).startswith("Revision 2 crashed. init() failed: ")
    assert "no such weights" in str(failure.value)
    assert any("no such weights" in detail["message"] for detail in failure.value.details)
    assert states(service) == ["active", "failed"]
    assert running(service) == {1}
    route = route_of(service)
    assert route
    assert route.address == first.address


@pytest.mark.slow
def test_the_reason_why_a_driver_is_refused_at_the_start_is_in_the_error(account: Account) -> None:
    operation = asked(make_service(account), "def init(): pass\ndef run(a, b): pass\n")
    with pytest.raises(services.RolloutError) as failure:
        services.roll_out(operation)
    assert failure.value.code == "ServiceCrashed"
    reason = "Revision 1 crashed. The driver's run() is called with one argument, the request's body, but run(a, b)"
    assert str(failure.value).startswith(reason)


def test_a_service_that_never_started_has_no_route_and_no_health(account: Account) -> None:
    service = make_service(account)
    with pytest.raises(services.RolloutError):
        services.roll_out(asked(service, BROKEN))
    service.refresh_from_db()
    assert service.health == ""
    assert route_of(service) is None
    assert running(service) == set()
    assert "no such weights" not in service.health_detail


def test_an_image_that_cannot_run_here_is_rejected_and_the_revision_failed(account: Account) -> None:
    service = make_service(account)
    operation = asked(service)
    Image.objects.filter(pk=present(operation.revision).image_id).update(digest=f"sha256:{'0' * 64}")
    with pytest.raises(EngineRefusedError, match="Build the image again"):
        services.roll_out(operation)
    assert states(service) == ["failed"]


def test_an_init_that_takes_too_long_fails_the_roll_out(account: Account, settings: Settings) -> None:
    settings.MMS_INIT_TIMEOUT = 1
    service = make_service(account)
    with pytest.raises(services.RolloutError):
        services.roll_out(asked(service, "import time\ndef init(): time.sleep(60)\ndef run(body): pass\n"))
    assert running(service) == set()


def test_a_worker_killed_after_the_start_is_taken_over(account: Account) -> None:
    service = make_service(account)
    operation = asked(service)
    process_engine().apply(revision_spec(present(operation.revision)))
    wait_until(lambda: healthy(service, 1))
    pid = present(process_engine().supervisor.info(name_of(service, 1)))["pid"]
    services.roll_out(operation)
    assert states(service) == ["active"]
    assert present(process_engine().supervisor.info(name_of(service, 1)))["pid"] == pid, "what ran was left alone"


@pytest.mark.slow
def test_a_worker_killed_between_the_switch_and_the_route_is_taken_over(account: Account) -> None:
    service = make_service(account)
    roll_out(service)
    operation = asked(service)
    process_engine().apply(revision_spec(present(operation.revision)))
    wait_until(lambda: healthy(service, 2))
    address = Program.for_revision(settings.RUN_DIR, str(service.pk), 2).address
    service.revisions.filter(number=1).update(state="draining")
    service.revisions.filter(number=2).update(state="active", activated_at=timezone.now(), address=address)
    services.roll_out(operation)
    route = route_of(service)
    assert route
    assert route.revision == 2
    assert running(service) == {2}


@pytest.mark.slow
def test_a_restart_of_the_supervisor_delays_a_roll_out_without_failing_it(account: Account, site: Site) -> None:
    service = make_service(account)
    operation = asked(service)
    site.stop()
    starting = threading.Timer(1, site.start)
    starting.start()
    services.roll_out(operation)
    starting.join()
    assert states(service) == ["active"]


@pytest.mark.slow
def test_a_long_request_is_answered_before_its_revision_is_stopped(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "STOP_SECONDS", 1)  # less than the remaining time of the request
    service = make_service(account)
    roll_out(service, SLEEPER)
    answers: list[tuple[int, object]] = []
    with Gateway() as gateway:
        asking = threading.Thread(target=lambda: answers.append(gateway.score(service, "5", timeout=20)))
        asking.start()
        wait_until(lambda: process_engine().observe(str(service.pk), 1).in_flight == 1)
        roll_out(service)
        asking.join()
    assert answers == [(200, "slept")]
    assert running(service) == {2}


@pytest.mark.slow
def test_a_very_long_request_is_left_to_the_watch(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "DRAIN_SECONDS", 1.5)
    service = make_service(account)
    roll_out(service, SLEEPER)
    answers: list[tuple[int, object]] = []
    with Gateway() as gateway:
        asking = threading.Thread(target=lambda: answers.append(gateway.score(service, "4", timeout=20)))
        asking.start()
        wait_until(lambda: process_engine().observe(str(service.pk), 1).in_flight == 1)
        roll_out(service)
        assert states(service) == ["draining", "active"]
        services.watch()
        assert running(service) == {1, 2}
        asking.join()
    assert answers == [(200, "slept")]
    watch_until(service, {2})


@pytest.mark.slow
def test_updates_under_a_steady_load_fail_no_request(account: Account) -> None:
    service = make_service(account)
    roll_out(service, "def init(): pass\ndef run(body): return 1\n")
    with Gateway() as gateway:
        load = [Load(gateway, service) for _ in range(4)]
        for number in (2, 3):
            roll_out(service, f"def init(): pass\ndef run(body): return {number}\n")
        wait_until(lambda: all(one.answers and one.answers[-1] == (200, 3) for one in load))
        for one in load:
            one.stop()
    answers = [answer for one in load for answer in one.answers]
    assert {status for status, _ in answers} == {200}
    assert {revision for _, revision in answers} == {1, 2, 3}
    assert len(answers) > 200


@pytest.mark.django_db(transaction=True)
def test_no_transaction_is_open_while_a_roll_out_waits(account: Account) -> None:
    service = make_service(account)
    operation = asked(service, "import time\ndef init(): time.sleep(1)\ndef run(body): pass\n")
    engine = process_engine()
    seen: list[bool] = []
    observe = engine.observe

    def observe_and_note(service_id: str, number: int) -> base.Observation:
        seen.append(connection.in_atomic_block)
        return observe(service_id, number)

    engine.observe = observe_and_note  # type: ignore[method-assign] # observes less than the real one
    try:
        services.roll_out(operation)
    finally:
        del engine.observe
    assert len(seen) > 5
    assert not any(seen)


# --- take down, keys, logs --------------------------------------------------------------------------------------------


def test_deleting_a_service_leaves_only_the_log(account: Account, site: Site) -> None:
    service = make_service(account)
    roll_out(service)
    services.take_down(service)
    assert route_of(service) is None
    assert running(service) == set()
    # The supervisor waits for the sandbox. The kernel ends the processes in it a moment later.
    wait_until(lambda: site.children() == [], 5)
    assert not list((settings.RUN_DIR / "services").glob("mms-*"))
    assert not list((settings.RUN_DIR / "s").iterdir())
    assert states(service) == ["stopped"]
    assert "init() has returned" in services.read_logs(service, 1, 0, 65536)[0]
    services.take_down(service)


def test_a_new_key_reaches_the_gateway(account: Account) -> None:
    service = make_service(account)
    roll_out(service)
    before = route_of(service)
    Service.objects.filter(pk=service.pk).update(primary_key="another")
    services.publish_route(service)
    after = route_of(service)
    assert before
    assert after
    assert before.key_digests[0] != after.key_digests[0]
    assert before.key_digests[1] == after.key_digests[1]


@pytest.mark.parametrize("server", ["https://10.0.0.1:6443", "process://elsewhere", "docker:///var/run/docker.sock"])
def test_an_unsupported_cluster_is_rejected_by_name(server: str) -> None:
    with pytest.raises(EngineRefusedError, match=server):
        services.engine_for(json.dumps({"clusters": [{"name": "x", "cluster": {"server": server}}]}))


# --- the watch --------------------------------------------------------------------------------------------------------


def test_the_watch_distinguishes_crashed_from_healthy_and_the_service_is_restarted(account: Account) -> None:
    service = make_service(account)
    roll_out(service)
    os.killpg(present(process_engine().supervisor.info(name_of(service, 1)))["pid"], signal.SIGKILL)
    wait_until(lambda: process_engine().observe(str(service.pk), 1).health == Health.CRASHED)
    services.watch()
    service.refresh_from_db()
    assert service.health == "crashed"
    assert "SIGKILL" in service.health_detail
    wait_until(lambda: healthy(service, 1))
    services.watch()
    service.refresh_from_db()
    assert (service.health, service.health_detail) == ("healthy", "Restarted 1 time.")


@pytest.mark.parametrize("method", ["observe", "remove"])
def test_one_bad_service_does_not_stop_the_watch_from_checking_the_others(
    account: Account, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = make_service(account, "bad"), make_service(account, "good")
    roll_out(bad)
    roll_out(good)
    real = getattr(process_engine(), method)

    def fails(service_id: str, number: int) -> object:
        if service_id == str(bad.pk):
            raise RecursionError("maximum recursion depth exceeded")
        return real(service_id, number)

    Service.objects.filter(pk=bad.pk).update(deleted_at=timezone.now() if method == "remove" else None)
    routes.remove(directory(), str(good.pk))
    stray = base.Revision(str(uuid.uuid4()), 1, good.revisions.get().image.digest)
    process_engine().apply(stray)
    with monkeypatch.context() as patch:
        patch.setattr(process_engine(), method, fails)
        services.watch()
    assert route_of(good)
    assert (stray.service_id, 1) not in process_engine().running()


def test_the_watch_starts_stopped_programs(account: Account) -> None:
    service = make_service(account)
    roll_out(service)
    process_engine().supervisor._call("stopProcess", name_of(service, 1))
    services.watch()
    wait_until(lambda: healthy(service, 1))


def test_the_watch_adds_missing_programs_and_restores_a_lost_route(account: Account) -> None:
    service = make_service(account)
    roll_out(service)
    process_engine().remove(str(service.pk), 1)
    routes.remove(directory(), str(service.pk))
    services.watch()
    service.refresh_from_db()
    assert service.health == "starting"
    assert route_of(service)
    wait_until(lambda: healthy(service, 1))


def test_the_watch_deletes_a_partial_route_of_a_killed_writer(account: Account) -> None:
    directory().mkdir(parents=True, exist_ok=True)
    half = directory() / ".q97jslfg.new"
    half.write_text("{")
    services.watch()
    assert not half.exists()


def test_the_watch_stops_programs_without_a_service(account: Account) -> None:
    service = make_service(account)
    roll_out(service)
    stray = base.Revision(str(uuid.uuid4()), 1, service.revisions.get().image.digest)
    process_engine().apply(stray)
    services.watch()
    assert process_engine().running() == {(str(service.pk), 1)}


def test_the_watch_leaves_a_roll_out_in_progress_alone_and_ends_an_abandoned_one(account: Account) -> None:
    service = make_service(account)
    operation = asked(service)
    process_engine().apply(revision_spec(present(operation.revision)))
    services.watch()
    assert (states(service), running(service)) == (["starting"], {1})
    ended(operation, State.FAILED)
    services.watch()
    assert (states(service), running(service)) == (["failed"], set())


@pytest.mark.slow
def test_the_watch_finishes_the_draining_of_a_killed_worker(account: Account) -> None:
    service = make_service(account)
    roll_out(service)
    roll_out(service)
    process_engine().apply(revision_spec(service.revisions.get(number=1)))
    service.revisions.filter(number=1).update(state="draining")
    wait_until(lambda: healthy(service, 1))
    watch_until(service, {2})
    assert states(service) == ["stopped", "active"]


@pytest.mark.slow
def test_the_watch_repairs_the_route_of_a_killed_switch_before_stopping_its_old_target(account: Account) -> None:
    service = make_service(account)
    roll_out(service)
    operation = asked(service)
    address = process_engine().apply(revision_spec(present(operation.revision)))
    wait_until(lambda: healthy(service, 2))
    long_ago = timezone.now() - timedelta(seconds=60)
    service.revisions.filter(number=1).update(state="draining")
    service.revisions.filter(number=2).update(state="active", activated_at=long_ago, address=address)
    services.watch()
    route = route_of(service)
    assert route
    assert (route.revision, running(service)) == (2, {1, 2}), "gateways may use the old route for a second"
    watch_until(service, {2})


def test_the_watch_stops_deleted_services(account: Account) -> None:
    service = make_service(account)
    roll_out(service)
    Service.objects.filter(pk=service.pk).update(deleted_at=timezone.now())
    services.watch()
    assert running(service) == set()
    assert states(service) == ["stopped"]


@pytest.mark.slow
def test_the_watch_changes_nothing_while_the_supervisor_is_unavailable(account: Account, site: Site) -> None:
    service = make_service(account)
    roll_out(service)
    site.stop()
    services.watch()
    service.refresh_from_db()
    assert service.health == "healthy"
    site.start()
    wait_until(lambda: healthy(service, 1))


@pytest.mark.serial
def test_two_concurrent_watches_do_the_work_once(account: Account) -> None:
    with locked(settings.RUN_DIR / "watch.lock"):
        began = time.monotonic()
        services.watch()
        assert quiet_seconds(time.monotonic() - began) < 0.5


@pytest.mark.slow
def test_an_old_revision_is_not_stopped_while_gateways_may_still_know_it(account: Account) -> None:
    service = make_service(account)
    roll_out(service)
    roll_out(service)
    service.revisions.filter(number=1).update(state="draining")
    service.revisions.filter(number=2).update(activated_at=timezone.now())
    assert stop_drained(process_engine(), service) == 1


# --- clients ----------------------------------------------------------------------------------------------------------


class Gateway:
    """Real gateway in a separate process."""

    def __enter__(self) -> "Gateway":
        self.port = free_port()
        command = [sys.executable, "-m", "mms.gateway", "--port", str(self.port), "--routes", str(directory())]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=settings.BASE_DIR)
        wait_until(self._answers)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(10)

    def _answers(self) -> bool:
        try:
            HTTPConnection("127.0.0.1", self.port, timeout=1).connect()
        except OSError:
            return False
        return True

    def score(self, service: Service, body: str, timeout: float = 10) -> tuple[int, object]:
        client = HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        headers = {"Authorization": "Bearer one", "Content-Type": "application/json"}
        client.request("POST", f"/scoring/{service.pk}/score", body, headers)
        response = client.getresponse()
        answer = response.status, json.loads(response.read())
        client.close()
        return answer


class Load(threading.Thread):
    """Client that sends requests continuously and records every response. Connection errors have status 0."""

    def __init__(self, gateway: Gateway, service: Service) -> None:
        super().__init__(daemon=True)
        self.gateway, self.service = gateway, service
        self.answers: list[tuple[int, object]] = []
        self.stopping = threading.Event()
        self.start()

    def run(self) -> None:
        while not self.stopping.is_set():
            try:
                self.answers.append(self.gateway.score(self.service, "[1]"))
            except OSError as error:
                self.answers.append((0, str(error)))
            time.sleep(0.005)

    def stop(self) -> None:
        self.stopping.set()
        self.join()
