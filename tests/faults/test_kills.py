"""Repeated kills of every process of the site while users work: nothing is lost and nothing happens twice."""

import json
import random
import statistics
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psutil
import pytest

from tests.doubles.mms import MMS
from tests.faults.load import PASSWORD, Load, Person, RemoteAccount, SentRequest, operations, unsettled
from tests.journeys.api import Api
from tests.ports import free_port
from tests.site import ROOT, Site, wait_until
from tests.twins import twins

pytestmark = pytest.mark.slow
PROGRAMS = ["site:worker", "site:mms-worker", "site:beat", "site:web", "redis"]


@pytest.fixture(scope="module")
def plain() -> Iterator[MMS]:
    """Start a server that implements only the API reference: a request sent twice has two effects."""
    with MMS(auto=True, slow=0.4) as server:
        yield server


@pytest.fixture(scope="module")
def idempotent() -> Iterator[MMS]:
    with MMS(auto=True, extensions=True, slow=0.4) as server:
        yield server


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("kills") / "data", MMS_FETCH_ALLOW_PRIVATE="true").start()
    site.manage("create_user", "ada", "--role", "admin", "--password-stdin", stdin=PASSWORD)
    yield site
    site.stop()


class Twins:
    """Second worker, MMS worker, beat and web beside the supervised ones, on the same data."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def keep_running(self) -> None:
        for name in ["worker", "mms-worker", "beat", "web"]:
            if name not in self.processes or self.processes[name].poll() is not None:
                environment = self.site.environment | {"PORT": str(free_port())} if name == "web" else None
                self.processes[name] = subprocess.Popen(
                    [sys.executable, "manage.py", "run", name],
                    cwd=ROOT,
                    env=environment or self.site.environment,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )

    def kill(self, name: str) -> None:
        if name in self.processes:
            self.processes[name].kill()
            self.processes[name].wait(10)

    def end(self) -> None:
        for name in list(self.processes):
            self.kill(name)


def kill_program(site: Site, name: str) -> bool:
    with suppress(psutil.Error, ValueError):
        site.program(name).kill()
        return True
    return False


def kill_builder(site: Site) -> bool:
    """Kill a running image builder."""
    for process in site.processes():
        with suppress(psutil.Error):
            if "mms.images.build" in process.cmdline() and "die_with_parent" not in " ".join(process.cmdline()):
                process.kill()
                return True
    return False


def kill_supervisor(site: Site, twins: Twins) -> float:
    """Kill everything, as a power failure does. Return the seconds until the site is healthy again."""
    assert site.process
    site.process.kill()
    site.process.wait(10)
    twins.end()
    wait_until(lambda: not site.processes(), 40, f"the end of {site.processes()}")
    began = time.monotonic()
    site.start()
    return time.monotonic() - began  # until it is healthy


def seconds_until_the_next_is_done(site: Site, far: RemoteAccount, person: Person, name: str) -> float:
    """Request an operation, with retries until it is accepted. Return the seconds until it has ended."""
    began = time.monotonic()
    wait_until(lambda: far.register(person, name).acknowledged, 60, "the site to answer")
    done = wait_until(
        lambda: [row for row in operations(site, far.name) if row["about"] == name and row["state"] == "succeeded"],
        120,
        f"the end of {name}",
    )
    assert done
    return time.monotonic() - began


def small_manifest(api: Api) -> str:
    """Create a manifest at the bundled MMS that builds within a second."""
    model = api.register_model()
    assets = [{"id": "score", "url": f"{api.files_url}/score.py", "mimeType": "text/x-python", "unPack": False}]
    body = {"modelType": "Registered", "modelIds": [model], "driverProgram": "score", "assets": assets}
    status, manifest, _ = api.ask("POST", "manifests", body | {"targetRuntime": {"runtimeType": "Python"}})
    assert status == 200, manifest
    return str(manifest["id"])


def local_rows(site: Site, manifest: str) -> RemoteAccount:
    """Return the site's rows for the account `local` and the manifest, when the site has mirrored it."""
    code = (
        "import json; from deployments.models import *; account = HostingAccount.objects.get(name='local');"
        f"manifest = Manifest.objects.filter(account=account, mms_id='{manifest}').first();"
        "print(json.dumps([account.registries.get().pk, account.clusters.get().pk, manifest and manifest.pk]))"
    )

    def found() -> list[int] | None:
        rows = json.loads(site.manage("shell", "-v0", "-c", code).splitlines()[-1])
        return rows if rows[2] else None

    registry, cluster, manifest_pk = wait_until(found, 330, "the mirror to see the manifest", every=2)
    return RemoteAccount("local", registry, cluster, manifest_pk, 0)


class Campaign:
    """Rounds of kills while users work, and their results."""

    def __init__(self, site: Site, loads: list[Load], next_one: Callable[[str], float], rounds: int) -> None:
        self.site, self.loads, self.next_one, self.rounds = site, loads, next_one, rounds
        self.twins, self.random = Twins(site), random.Random(11)
        self.kills: Counter[str] = Counter()
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)

    def run(self) -> list[SentRequest]:
        for load in self.loads:
            load.start()
        try:
            for number in range(self.rounds):
                self.round(number)
            wait_until(self.kill_another_builder, 180, f"builders to kill: {self.kills}", every=0.02)
        finally:
            asked = [one for load in self.loads for one in load.stop()]
            self.twins.end()
        return asked

    def round(self, number: int) -> None:
        """Kill each program in random order, half of the time with its twin, and finally all of them together."""
        self.twins.keep_running()
        for name in self.random.sample(PROGRAMS, len(PROGRAMS)):
            time.sleep(self.random.uniform(0.3, 1.5))
            self.kills[name] += kill_program(self.site, name)
            if self.random.random() < 0.5:
                self.twins.kill(name.rpartition(":")[2])
            self.kills["builder"] += kill_builder(self.site)
            if number < 3:
                self.seconds[name].append(self.next_one(f"{name.rpartition(':')[2]}-{number}"))
        self.seconds["everything"].append(kill_supervisor(self.site, self.twins))
        self.kills["supervisor"] += 1

    def kill_another_builder(self) -> bool:
        """Kill a builder. Return True if enough have been killed."""
        self.kills["builder"] += kill_builder(self.site)
        return self.kills["builder"] >= self.rounds


@twins("rounds", 3, 20)
def test_nothing_is_lost_or_repeated_whichever_process_is_killed(
    site: Site, plain: MMS, idempotent: MMS, files_url: str, record: dict[str, object], rounds: int
) -> None:
    ann, bob, cat, dan, eve = (Person(site) for _ in range(5))
    far, sure = RemoteAccount.at(site, plain, "far"), RemoteAccount.at(site, idempotent, "sure")
    eve.look("/accounts/local/")  # so that the mirror refreshes soon
    local = local_rows(site, small_manifest(Api(site, files_url)))
    loads = [
        Load(lambda n: far.register(ann, f"far-{n}"), 0.4, seed=1),
        Load(lambda n: far.deploy(bob, f"far-service-{n}"), 0.9, seed=2),
        Load(lambda n: sure.build(cat, f"sure-{n}"), 0.6, seed=3),
        Load(lambda n: local.build(dan, f"local-{n}"), 2.0, seed=4),
    ]
    campaign = Campaign(site, loads, lambda name: seconds_until_the_next_is_done(site, sure, eve, name), rounds)
    asked = campaign.run()
    began = time.monotonic()
    wait_until(lambda: not unsettled(site), 400, "the end of all operations", every=1)
    settled = time.monotonic() - began
    assert site.health()[0] == 200

    rows = operations(site)
    acknowledged = [one for one in asked if one.acknowledged]
    known = {(row["kind"], row["about"]) for row in rows}
    assert not [one for one in acknowledged if (one.kind, one.name) not in known], "something was lost"
    elsewhere = [row for row in rows if row["account"] != "local"]
    assert not [row for row in elsewhere if _effects(row, plain, idempotent) > 1], "something happened twice"
    assert not [row for row in elsewhere if not _is_true(row, plain, idempotent)], "the site shows a wrong state"
    assert {row["state"] for row in rows} <= {"succeeded", "failed"}
    assert sum(row["state"] == "succeeded" for row in elsewhere) > 0.9 * len(elsewhere)
    assert min(campaign.kills.values()) >= rounds, campaign.kills
    record |= {
        "kills": campaign.kills,
        "asked for": len(asked),
        "acknowledged": len(acknowledged),
        "operations": len(rows),
        "sent a second time": sum(row["attempts"] > 1 for row in rows),
        "seconds until what is asked for next is done (median, longest)": {
            name: (round(statistics.median(times), 1), round(max(times), 1)) for name, times in campaign.seconds.items()
        },
        "seconds until the last operation had ended": round(settled, 1),
    }


def _effects(row: dict[str, Any], plain: MMS, idempotent: MMS) -> int:
    """Return how many resources on the server the operation has created."""
    server = plain if row["account"] == "far" else idempotent
    made = {
        "register_model": [item["name"] for item in server.models.values()],
        "create_service": [item["name"] for item in server.services.values()],
        "create_image": [item.get("description") for item in server.images.values()],
    }
    return made[row["kind"]].count(row["about"])


def _is_true(row: dict[str, Any], plain: MMS, idempotent: MMS) -> bool:
    """Return True if the state that the site shows for the operation matches the server."""
    made = _effects(row, plain, idempotent)
    return made == 1 if row["state"] == "succeeded" else made == 0 and row["state"] == "failed"
