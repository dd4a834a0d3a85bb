"""Repeated requests to the bundled MMS, with two workers, with web killed in the middle, and across a reboot.

Each has one effect: a request with a known x-ms-client-request-id returns the result of the first one.
"""

import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import psutil
import pytest
import redis
import requests

from tests.faults import wholeness
from tests.faults.mms_figures import Figures, printed
from tests.faults.mms_kills import is_builder, kill_everything
from tests.faults.mms_phases import Gate, World, enter, held_before, running_world
from tests.journeys.api import HERE, KUBE_CONFIG
from tests.site import ROOT, wait_until

pytestmark = pytest.mark.slow

AT_ONCE = 10


@pytest.fixture(scope="module")
def figures(request: pytest.FixtureRequest) -> Iterator[Figures]:
    with printed(request) as figures:
        yield figures


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running_world(tmp_path_factory.mktemp("once")) as world:
        yield world


@pytest.fixture(scope="module")
def manifest(world: World) -> str:
    world.files.put("/small.bin", b"weights")
    return world.manifest("/small.bin")


@pytest.fixture(scope="module")
def image(world: World, manifest: str) -> str:
    return world.made(world.build(manifest))


# --- the same request, again and again --------------------------------------------------------------------------------


@dataclass
class Wish:
    """Request, and the number of its effects in the database. `ask` can be called any number of times."""

    ask: Callable[[], requests.Response]
    effects: Callable[[], int]


def register_model(world: World, image: str, manifest: str) -> Wish:
    name, key = f"m-{uuid.uuid4().hex[:12]}", str(uuid.uuid4())
    body = {"name": name, "url": "http://models.example/x"}
    count = f"SELECT count(*) FROM mms_model WHERE name = '{name}'"
    return Wish(lambda: world.send("POST", "models", body, key), lambda: world.rows(count)[0][0])


def create_manifest(world: World, image: str, manifest: str) -> Wish:
    found = world.send("GET", f"manifests/{manifest}").json()
    key = str(uuid.uuid4())
    body = {name: found[name] for name in ("modelIds", "driverProgram", "assets", "targetRuntime")}
    body |= {"modelType": "Registered", "description": key}
    count = f"SELECT count(*) FROM mms_manifest WHERE description = '{key}'"
    return Wish(lambda: world.send("POST", "manifests", body, key), lambda: world.rows(count)[0][0])


def create_image(world: World, image: str, manifest: str) -> Wish:
    key = str(uuid.uuid4())
    body = {"manifestId": manifest, "imageType": "Docker", "registryInfo": HERE, "description": key}
    count = f"SELECT count(*) FROM mms_image WHERE description = '{key}'"
    return Wish(lambda: world.send("POST", "images", body, key), lambda: world.rows(count)[0][0])


def create_service(world: World, image: str, manifest: str) -> Wish:
    name, key = f"s-{uuid.uuid4().hex[:12]}", str(uuid.uuid4())
    body = {"name": name, "imageId": image, "kubeConfig": KUBE_CONFIG, "acrImagePullSecret": "local"}
    count = f"SELECT count(*) FROM mms_revision r JOIN mms_service s ON r.service_id = s.id WHERE s.name = '{name}'"
    return Wish(lambda: world.send("POST", "services", body, key), lambda: world.rows(count)[0][0])


def update_service(world: World, image: str, manifest: str) -> Wish:
    service, key = world.service(image), str(uuid.uuid4())
    body = {"imageId": image, "acrImagePullSecret": "local"}
    count = "SELECT count(*) - 1 FROM mms_revision WHERE service_id = ?"
    return Wish(lambda: world.send("PUT", f"services/{service}", body, key), lambda: world.rows(count, service)[0][0])


def regenerate_keys(world: World, image: str, manifest: str) -> Wish:
    service, key = world.service(image), str(uuid.uuid4())
    count = "SELECT count(*) FROM mms_operation WHERE service_id = ? AND verb = 'regenerate_keys'"
    return Wish(
        lambda: world.send("POST", f"services/{service}/regenerateKeys", {}, key),
        lambda: world.rows(count, service)[0][0],
    )


def delete_service(world: World, image: str, manifest: str) -> Wish:
    service, key = world.service(image), str(uuid.uuid4())
    count = "SELECT count(*) FROM mms_operation WHERE service_id = ? AND verb = 'delete_service'"
    return Wish(
        lambda: world.send("DELETE", f"services/{service}", None, key), lambda: world.rows(count, service)[0][0]
    )


WISHES = [
    register_model, create_manifest, create_image, create_service, update_service, regenerate_keys, delete_service
]  # fmt: skip


def answered(answer: requests.Response) -> tuple[int, str]:
    """Return what a client uses next: the status, and the created resource or the operation that creates it."""
    assert answer.status_code in {200, 201, 202}, answer.text
    return answer.status_code, answer.text or answer.headers["x-ms-request-id"]


@pytest.mark.parametrize("wish", WISHES, ids=lambda wish: wish.__name__)
def test_a_request_sent_ten_times_in_parallel_has_one_effect(
    world: World, figures: Figures, image: str, manifest: str, wish: Callable[..., Wish]
) -> None:
    one = wish(world, image, manifest)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = {answered(answer) for answer in pool.map(lambda _: one.ask(), range(AT_ONCE))}
    assert answers == {answered(one.ask())}
    figures.requests += AT_ONCE
    figures.repeated += one.effects() - 1
    assert one.effects() == 1


@pytest.mark.parametrize("wish", WISHES, ids=lambda wish: wish.__name__)
def test_a_repeated_request_has_one_effect_although_web_was_killed(
    world: World, figures: Figures, image: str, manifest: str, wish: Callable[..., Wish]
) -> None:
    one = wish(world, image, manifest)
    web = world.site.program("site:web")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        asking = [pool.submit(_perhaps, one.ask) for _ in range(AT_ONCE)]
        time.sleep(0.01 + 0.01 * WISHES.index(wish))  # some are answered, some are in progress, some aren't read yet
        web.kill()
    at = time.monotonic()
    answers = {answered(answer) for answer in (future.result() for future in asking) if answer is not None}
    wait_until(lambda: _perhaps(lambda: world.send("GET", "models")), 60, "web to be back")
    figures.kills += 1
    figures.requests += AT_ONCE
    figures.seconds["web killed in a request"].append(time.monotonic() - at)
    assert answers <= {answered(one.ask())}
    figures.repeated += one.effects() - 1
    assert one.effects() == 1


def _perhaps(ask: Callable[[], requests.Response]) -> requests.Response | None:
    with suppress(requests.RequestException):
        return ask()
    return None


def test_a_failure_is_final_and_a_new_request_tries_again(world: World) -> None:
    held = world.build(world.manifest("/not-there.bin"))
    assert world.ended(held.operation)["state"] == "Failed"
    assert held.again().headers["x-ms-request-id"] == held.operation
    assert world.rows("SELECT attempts FROM mms_operation WHERE id = ?", held.operation) == [(1,)]
    world.files.put("/not-there.bin", b"now it is")
    assert world.made(world.build(held.manifest))


def test_a_refused_request_has_no_effect_and_its_id_can_be_used_again(world: World, image: str) -> None:
    service = world.service(image)
    first, key = world.update(service, world.image(init=1)), str(uuid.uuid4())
    body = {"imageId": image, "acrImagePullSecret": "local"}
    assert world.send("PUT", f"services/{service}", body, key).status_code == 409
    world.made(first)
    again = world.send("PUT", f"services/{service}", body, key)
    assert again.status_code == 202
    assert world.ended(again.headers["x-ms-request-id"])["state"] == "Succeeded"


# --- two workers ------------------------------------------------------------------------------------------------------


@pytest.fixture
def second(world: World) -> Iterator[subprocess.Popen[bytes]]:
    """Start another worker for the same queue, as the supervisor starts its own."""
    first = world.site.program("site:mms-worker")
    command = ["second@%h" if word.startswith("mms-worker@") else word for word in first.cmdline()]
    with (world.site.data / "log" / "second.log").open("wb") as log:
        worker = subprocess.Popen(command, cwd=ROOT, env=first.environ(), stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: _waiting_for_work(world) == 3, 60, "the second worker to wait for work")
        yield worker
    finally:
        worker.terminate()
        worker.wait(30)


def _waiting_for_work(world: World) -> int:
    """Return how many workers of either queue wait for work."""
    client = redis.Redis(unix_socket_path=str(world.site.data / "run" / "redis.sock"))
    with client:
        return sum(one["cmd"] == "brpop" for one in client.client_list())


BETWEEN = 0.37  # seconds; workers poll every second, and builds in step with that would all go to one worker


def builders_by_worker(world: World) -> dict[int, list[psutil.Process]]:
    """Return the running builders by the process that started them."""
    found: dict[int, list[psutil.Process]] = {}
    for process in psutil.process_iter():
        if is_builder(world.site, process):
            with suppress(psutil.Error):
                found.setdefault(process.ppid(), []).append(process)
    return found


def held_model(world: World) -> tuple[str, Gate]:
    """Create a manifest whose model is sent when the gate opens."""
    path = f"/held-{uuid.uuid4().hex}.bin"
    gate = held_before(world, path, b"weights", "application/octet-stream")
    return world.manifest(path), gate


def test_two_workers_building_in_parallel_produce_the_same_image(world: World, second: subprocess.Popen[bytes]) -> None:
    manifest, gate = held_model(world)
    builds = [world.build(manifest) for _ in range(4)]
    workers = {world.site.program("site:mms-worker").pid, second.pid}

    def both_at_work() -> bool:
        if builders_by_worker(world).keys() >= workers:
            return True
        if len(builds) < 8:
            builds.append(world.build(manifest))
        return False

    try:
        wait_until(both_at_work, 60, "builders of both workers", every=BETWEEN)
    finally:
        gate.opened.set()
    images = [world.made(one) for one in builds]
    assert len({world.send("GET", f"images/{image}").json()["digest"] for image in images}) == 1
    attempts = [world.rows("SELECT attempts FROM mms_operation WHERE id = ?", one.operation) for one in builds]
    assert attempts == [[(1,)]] * len(builds)
    wholeness.assert_whole(world.site)


def test_the_work_of_a_killed_worker_is_taken_over_by_the_other(
    world: World, figures: Figures, second: subprocess.Popen[bytes]
) -> None:
    manifest, gate = held_model(world)
    builds: list[Any] = []

    def second_at_work() -> bool:
        if len(builds) < 8:
            builds.append(world.build(manifest))
        return second.pid in builders_by_worker(world)

    try:
        wait_until(second_at_work, 60, "a builder of the second worker", every=BETWEEN)
        second.kill()
    finally:
        gate.opened.set()
    at = time.monotonic()
    figures.kills += 1
    assert {world.ended(one.operation)["state"] for one in builds} == {"Succeeded"}
    figures.seconds["one of two workers killed in download"].append(time.monotonic() - at)
    wholeness.assert_whole(world.site)


def test_of_two_concurrent_updates_one_is_refused(world: World, image: str, second: subprocess.Popen[bytes]) -> None:
    service = world.service(image)
    body = {"imageId": image, "acrImagePullSecret": "local"}
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda _: world.send("PUT", f"services/{service}", body), range(2)))
    accepted, refused = sorted(answers, key=lambda answer: answer.status_code)
    assert (accepted.status_code, refused.status_code) == (202, 409)
    assert world.ended(accepted.headers["x-ms-request-id"])["state"] == "Succeeded"
    states = world.rows("SELECT state FROM mms_revision WHERE service_id = ? ORDER BY number", service)
    assert states == [("stopped",), ("active",)]


def test_two_workers_watch_a_service_and_only_one_restarts_it(
    world: World, image: str, second: subprocess.Popen[bytes]
) -> None:
    service = world.service(image)
    program = f"mms-{uuid.UUID(service).hex}-1"
    os.killpg(int(world.site.supervisorctl("pid", program)), signal.SIGKILL)
    wait_until(lambda: _scores(world, service), 30, "the service to be back")
    seen = "SELECT health, health_detail FROM mms_service WHERE id = ?"
    once = [("healthy", "Restarted 1 time.")]
    wait_until(lambda: world.rows(seen, service) == once, 30, "the watch to notice it")
    wholeness.assert_whole(world.site)


def _scores(world: World, service: str) -> bool:
    with suppress(requests.RequestException, KeyError, ValueError):
        return world.score(service).status_code == 200
    return False


# --- a reboot ---------------------------------------------------------------------------------------------------------


def test_after_a_reboot_services_answer_and_running_operations_end(world: World, figures: Figures, image: str) -> None:
    """A reboot deletes everything in memory: /run and the content of Redis."""
    services = [world.service(image), world.service(world.image())]
    before = [_access(world, service) for service in services]
    build, roll_out = enter(world, "download", "start")
    kill_everything(world)
    for folder in ("run", "redis", "tmp"):
        shutil.rmtree(world.site.data / folder)
    (world.site.data / "mms" / "boot").write_text("the boot before")
    build.go()
    figures.kills += 1
    at = time.monotonic()
    world.site.start()
    for service in services:
        wait_until(partial(_scores, world, service), 60, "a service after the reboot")
    figures.seconds["reboot, until services answer"].append(time.monotonic() - at)
    assert [_access(world, service) for service in services] == before
    for one in (build, roll_out):
        assert world.ended(one.operation)["state"] == "Succeeded"
    figures.seconds["reboot, until what was under way has ended"].append(time.monotonic() - at)
    assert world.score(roll_out.service).status_code == 200
    wholeness.assert_whole(world.site)


def _access(world: World, service: str) -> tuple[Any, Any]:
    keys = world.send("GET", f"services/{service}/keys").json()
    return world.send("GET", f"services/{service}").json()["scoringUri"], keys
