"""A new action while many operations of its account are pending.

The server is a test double in a process of its own, so that only the worker's work is measured. It implements the API
reference with and without extensions.
"""

import json
import multiprocessing
import statistics
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

from tests.bench.load import percentile
from tests.bench.ours import Bench
from tests.bench.run import Run
from tests.bench.table import Row
from tests.doubles.mms import MMS

ACTIONS = 40
BUILDS = 12
BUILD_SECONDS = 3.0
MODEL = "m-"  # the names of submitted models begin with it

FILL = """
    from datetime import timedelta
    from django.utils import timezone
    from deployments.models import *
    from deployments.models.operation import Kind, State
    place = dict(subscription="s", resource_group="g", hosting_account="a")
    fields = dict(base_url="{url}", token="{token}", **place)
    account, _ = HostingAccount.objects.update_or_create(name="{name}", defaults=fields)
    RegistryInfo.objects.get_or_create(account=account, name="registry", defaults=dict(
        location="registry.example", user="u", password="p"))
    manifest, _ = Manifest.objects.get_or_create(account=account, mms_id="manifest", runtime_type="Python")
    Operation.objects.filter(account=account).delete()
    now = timezone.now()
    accepted = now - timedelta(seconds={age})
    images = Image.objects.bulk_create([
        Image(account=account, manifest=manifest, registry=account.registries.get()) for _ in range({count})])
    for part in range(0, {count}, 500):
        Operation.objects.bulk_create([
            Operation(account=account, kind=Kind.CREATE_IMAGE, state=State.RUNNING, requested_by="bench", image=image,
                      body=dict(manifest=manifest.pk, registry=account.registries.get().pk, description=""),
                      mms_operation_id=f"pending-{{part + number}}", sent_at=accepted, accepted_at=accepted,
                      checked_at=now, next_poll_at=now)
            for number, image in enumerate(images[part:part + 500])])
    print(manifest.pk)
"""

# Submits models, which need one request, and builds, which end some seconds after they were accepted.
ACT = """
    import json, random, time
    from deployments.models import HostingAccount, Manifest
    from deployments.operations import submit
    account = HostingAccount.objects.get(name="{name}")
    manifest = Manifest.objects.get(pk={manifest})
    for number in range({actions}):
        time.sleep(random.uniform(0.3, 0.7))
        at = time.time()
        name = f"{model}{{time.time_ns():x}}"
        submit.register_model(account, "bench", name=name, url="http://files.example/m.pkl")
        print(json.dumps([at, name]), flush=True)
        if number < {builds}:
            new = submit.create_image(account, "bench", manifest=manifest, registry=account.registries.get())
            print(json.dumps([at, str(new.pk)]), flush=True)
"""

NEWS = """
    import json
    from deployments.models import Operation
    done = Operation.objects.filter(account__name="{name}", kind="create_image").exclude(finished_at=None)
    print(json.dumps({{str(row.pk): [row.mms_operation_id, row.finished_at.timestamp()] for row in done}}))
"""


def measure(run: Run) -> Iterator[Row]:
    """Measure beside few young and many old operations, at servers with and without extensions."""
    for count, age in run.sizes.pending:
        yield from _beside(run.bench, count, age, extensions=True)
    yield from _beside(run.bench, *run.sizes.pending[-1], extensions=False)


def serve(pipe: "Connection[Any, Any]", extensions: bool) -> None:
    """Run the double: end each build after BUILD_SECONDS, and report when requests arrived and builds ended."""
    with MMS(extensions=extensions) as mms:
        mms.manifests["manifest"] = {"id": "manifest", "targetRuntime": {"runtimeType": "Python"}}
        for number in range(3000):
            mms.operations[f"pending-{number}"] = {
                "id": f"pending-{number}",
                "operationType": "Image",
                "state": "Running",
                "createdTime": "2026-01-01T00:00:00Z",
                "endTime": None,
                "resourceLocation": "",
                "error": None,
                "done": lambda: None,
            }
        accepted: dict[str, float] = {}
        ended: dict[str, float] = {}
        pipe.send(mms.url)
        while not pipe.poll(0.02):
            for key, operation in list(mms.operations.items())[3000:]:
                since = accepted.setdefault(key, time.time())
                if key not in ended and time.time() - since > BUILD_SECONDS:
                    operation["done"]()
                    operation["state"] = "Succeeded"
                    ended[key] = time.time()
        sent = {request.body["name"]: request.at for request in mms.calls("POST", "/models")}
        polls = len(mms.calls("GET", "/operations"))
        pipe.send((sent, ended, polls, mms.requests[-1].at - mms.requests[0].at))


def _beside(bench: Bench, count: int, age: float, *, extensions: bool) -> Iterator[Row]:
    """Measure actions beside `count` operations of the same account that were accepted `age` seconds ago."""
    ours, theirs = multiprocessing.Pipe()
    double = multiprocessing.get_context("fork").Process(target=serve, args=(theirs, extensions), daemon=True)
    double.start()
    name = f"pending-{count}"
    manifest = bench.shell(FILL.format(url=ours.recv(), token=MMS.token, name=name, age=age, count=count)).split()[-1]
    time.sleep(5)
    worker = bench.site.program("site:worker")
    before, began = sum(worker.cpu_times()[:2]), time.time()
    acting = bench.shell_in_background(
        ACT.format(name=name, manifest=manifest, actions=ACTIONS, builds=BUILDS, model=MODEL)
    )
    assert acting.stdout
    asked = {key: at for at, key in map(json.loads, acting.stdout)}
    time.sleep(BUILD_SECONDS + 6)
    core = (sum(worker.cpu_times()[:2]) - before) / (time.time() - began)
    done: dict[str, Any] = json.loads(bench.shell(NEWS.format(name=name)).splitlines()[-1])
    ours.send("stop")
    sent, ended, polls, seconds = ours.recv()
    double.join(10)
    bench.shell(f'from deployments.models import *; HostingAccount.objects.filter(name="{name}").delete()')
    never = float("inf")  # what wasn't sent or didn't end counts as late
    waits = [sent.get(key, never) - at for key, at in asked.items() if key.startswith(MODEL)]
    news = [_delay(done.get(key), ended) for key in asked if not key.startswith(MODEL)]
    what = f"beside {count:,} operations, {age:.0f} s old, {'with' if extensions else 'without'} extensions"
    limit = 0.5 if count < 1000 else 1.0
    p95, middle = percentile(waits, 0.95), statistics.median(news)
    seen = f"p95 {p95:.2f} s, median {statistics.median(waits):.2f} s, {_finite(waits)} of {len(waits)} sent"
    yield Row(f"a new action until it is sent, {what}", seen, f"p95 ≤ {limit:g} s", p95 <= limit)
    seen = f"median {middle:.2f} s, {_finite(news)} of {len(news)} ended; {polls / seconds:.0f} requests per second"
    yield Row("... news of operations that are a few seconds old", seen, "median ≤ 2 s", middle <= 2)
    yield Row("... CPU of the worker", f"{core:.2f} cores", "≤ 0.35 cores", core <= 0.35)


def _delay(done: list[Any] | None, ended: dict[str, float]) -> float:
    """Return the seconds from the end of an operation at the server until the row had it; infinite if it hasn't."""
    return done[1] - ended[done[0]] if done and done[0] in ended else float("inf")


def _finite(values: list[float]) -> int:
    return sum(value < float("inf") for value in values)
