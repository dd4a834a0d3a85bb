"""Event streams: opening them, delivering events, and the lists that open pages fetch after an event."""

import asyncio
import json
import socket
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import uvloop

from tests.bench import load, tabs
from tests.bench.load import percentile
from tests.bench.ours import MODELS, Bench
from tests.bench.run import Run, latency
from tests.bench.table import ROOT, Row
from tests.ports import free_port
from tests.site import wait_until

TABS_PER_USER = 20
TURNS = 2  # of each server
EVENT_SECONDS = 0.5  # between two events
HERD_SECONDS = 5.0  # between two events that make every page fetch its list
OPEN_LIMIT = 3.0

# Prints a session key for each user.
USERS = """
    from importlib import import_module
    from django.conf import settings
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.auth.models import User
    from dashboard.models import Membership, Role
    from deployments.models import HostingAccount
    account = HostingAccount.objects.get(name="local")
    Store = import_module(settings.SESSION_ENGINE).SessionStore
    for number in range({count}):
        user, _ = User.objects.get_or_create(username=f"reader-{{number}}")
        Membership.objects.get_or_create(user=user, account_id=account.pk, defaults=dict(role=Role.values[0]))
        session = Store()
        session[SESSION_KEY], session[HASH_SESSION_KEY] = str(user.pk), user.get_session_auth_hash()
        session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
        session.save()
        print(session.session_key)
"""

NEWEST = """
    from deployments.models import Operation
    print(f"operation-{Operation.objects.latest('requested_at').pk}")
"""

# Acts as the worker: announces state changes as the pipeline does, and prints when.
ANNOUNCE = """
    import json, time
    from deployments.live.events import publish_operation
    from deployments.models import Operation
    operation = Operation.objects.latest("requested_at")
    state = operation.state
    publish_operation(operation)
    time.sleep({pause})
    for number in range({count}):
        operation.state = ("running", "not_started")[number % 2]
        print(time.time(), flush=True)
        publish_operation(operation{also})
        time.sleep({pause})
    operation.state = state
    publish_operation(operation)
"""


def measure(run: Run) -> Iterator[Row]:
    """Measure streams of the site and of a plain Django application in turn, then pages that fetch their lists."""
    bench, sizes = run.bench, run.sizes
    bench.service()
    bench.seed_models(sizes.models)
    keys = bench.shell(USERS.format(count=max(1, max(sizes.streams, sizes.listeners) // TABS_PER_USER))).split()
    web = psutil.Process(bench.site.program("site:web").pid)
    requests, events = _stream_requests(bench, keys, sizes.streams), sizes.events // TURNS
    with _plain(bench) as (url, server):
        plain_requests = [(f"{url}/stream", load.encode("GET", f"{url}/stream"))] * sizes.streams
        turns = [
            (_deliver(bench, web, requests, events), _deliver(bench, server, plain_requests, events))
            for _ in range(TURNS)
        ]
    ours, plain = (_together(delivered) for delivered in zip(*turns, strict=True))
    yield Row(
        f"opening {sizes.streams:,} streams",
        f"{ours.opening:.1f} s; plain Django {plain.opening:.1f} s",
        f"≤ {OPEN_LIMIT:g} s",
        ours.opening <= OPEN_LIMIT,
    )
    p95, plain_p95 = percentile(ours.delays, 0.95), percentile(plain.delays, 0.95)
    yield Row(
        f"state change → {sizes.streams:,} streams",
        f"p95 {p95:.0f} ms, median {statistics.median(ours.delays):.0f} ms; plain Django p95 {plain_p95:.0f} ms",
        "p95 ≤ 1.1 × plain Django",
        p95 <= 1.1 * plain_p95,
    )
    yield Row(
        "... CPU of the web server for each event",
        f"{ours.cpu:.0f} ms; plain Django {plain.cpu:.0f} ms",
        "≤ 60 ms",
        ours.cpu <= 60,
    )
    yield _herd(run, keys)


@dataclass(frozen=True)
class Delivery:
    """Seconds of opening, milliseconds from each event to each stream, and milliseconds of CPU for each event."""

    opening: float
    delays: list[float]
    cpu: float


def _together(delivered: Sequence[Delivery]) -> Delivery:
    """Return the median of the openings and of the CPU, and all delays."""
    return Delivery(
        opening=statistics.median(one.opening for one in delivered),
        delays=[delay for one in delivered for delay in one.delays],
        cpu=statistics.median(one.cpu for one in delivered),
    )


def _stream_requests(bench: Bench, keys: list[str], count: int) -> list[tuple[str, bytes]]:
    url = f"{bench.site.url}/stream"
    requests = [load.encode("GET", url, headers={"Cookie": f"{_cookie(bench)}={key}"}) for key in keys]
    return [(url, requests[number % len(requests)]) for number in range(count)]


def _cookie(bench: Bench) -> str:
    """Return the name of the cookie with the session key."""
    return next(cookie.name for cookie in bench.pages.cookies if "session" in cookie.name)


def _deliver(bench: Bench, server: psutil.Process, requests: list[tuple[str, bytes]], events: int) -> Delivery:
    """Open a stream for each request, announce events, and return when they arrived."""
    return uvloop.run(_delivered(bench, server, requests, events))


async def _delivered(bench: Bench, server: psutil.Process, requests: list[tuple[str, bytes]], events: int) -> Delivery:
    heard: defaultdict[tabs.Tab, list[float]] = defaultdict(list)

    def on_event(tab: tabs.Tab, now: float, name: bytes, data: bytes) -> None:
        if name == b"badge" and key in data:
            heard[tab].append(now)

    key = bench.shell(NEWEST).encode()

    opened = [tabs.Tab(request, on_event) for _, request in requests]

    async def work() -> Delivery:
        opening = await tabs.open_tabs(requests[0][0], opened)
        await asyncio.sleep(2)
        idle = await _cpu_rate(server, events * EVENT_SECONDS)
        announcing = ANNOUNCE.format(pause=EVENT_SECONDS, count=events, also="")
        cpu, started = _cpu(server), time.time()
        times = await _output(bench.shell_in_background(announcing))
        await asyncio.sleep(1)
        used = _cpu(server) - cpu - idle * (time.time() - started)
        # The first and the last event restore the state. A client that missed one of the others has a wrong count.
        complete = [arrived for arrived in heard.values() if len(arrived) == events + 2]
        assert len(complete) == len(opened), f"{len(opened) - len(complete)} streams missed or repeated an event"
        delays = [(seen - at) * 1000 for arrived in complete for at, seen in zip(times, arrived[1:], strict=False)]
        return Delivery(opening, delays, used * 1000 / (events + 2))

    result: Delivery = await tabs.closed(opened, work())
    return result


def _herd(run: Run, keys: list[str]) -> Row:
    """Measure from one event until every open page of the list of models has fetched it again."""
    delays = uvloop.run(_refetched(run.bench, _stream_requests(run.bench, keys, run.sizes.listeners), keys, run))
    what = f"{run.sizes.listeners} open list pages, one event → list fetched again"
    return latency(what, delays, 1000, f", last {max(delays):.0f} ms")


async def _refetched(bench: Bench, requests: list[tuple[str, bytes]], keys: list[str], run: Run) -> list[float]:
    url = bench.site.url + MODELS
    headers = {"HX-Request": "true", "HX-Target": "list", "HX-Current-URL": url, "Background": "1"}
    fetching: list[asyncio.Task[float]] = []
    key = bench.shell(NEWEST).encode()

    def fetcher(number: int) -> Callable[[tabs.Tab, float, bytes, bytes], None]:
        cookie = {"Cookie": f"{_cookie(bench)}={keys[number % len(keys)]}", "Accept-Encoding": "gzip"}
        message = load.encode("GET", url, headers=headers | cookie)

        def on_event(tab: tabs.Tab, now: float, name: bytes, data: bytes) -> None:
            if name == b"badge" and key in data and "models" in json.loads(data)["refresh"]:
                fetching.append(asyncio.create_task(tabs.fetch(tab, url, message)))

        return on_event

    opened = [tabs.Tab(request, fetcher(number)) for number, (_, request) in enumerate(requests)]
    count = max(1, run.sizes.events // 4)

    async def work() -> list[float]:
        await tabs.open_tabs(requests[0][0], opened)
        announcing = ANNOUNCE.format(pause=HERD_SECONDS, count=count, also=', "models"')
        times = await _output(bench.shell_in_background(announcing))
        ended = sorted(await asyncio.gather(*fetching))
        assert len(ended) == count * len(opened), f"{len(ended)} instead of {count * len(opened)} lists were fetched"
        # All pages have fetched their lists before the next event.
        return [(end - times[index // len(opened)]) * 1000 for index, end in enumerate(ended)]

    result: list[float] = await tabs.closed(opened, work())
    return result


async def _output(process: "subprocess.Popen[str]") -> list[float]:
    """Wait for the process. Return the numbers that it printed."""
    output, _ = await asyncio.to_thread(process.communicate)
    assert process.returncode == 0, output
    return [float(line) for line in output.splitlines()]


def _cpu(server: psutil.Process) -> float:
    """Return the seconds of CPU that the server and its children have used."""
    return sum(sum(process.cpu_times()[:2]) for process in [server, *server.children(recursive=True)])


async def _cpu_rate(server: psutil.Process, seconds: float) -> float:
    before = _cpu(server)
    await asyncio.sleep(seconds)
    return (_cpu(server) - before) / seconds


@contextmanager
def _plain(bench: Bench) -> Iterator[tuple[str, psutil.Process]]:
    """Run the comparison server. Yield its address and process."""
    redis_url = bench.shell("from django.conf import settings; print(settings.REDIS_URL)")
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "tests.bench.plain:application", "--port", str(port)]
    options = [
        "--loop",
        "uvloop",
        "--http",
        "httptools",
        "--lifespan",
        "off",
        "--no-access-log",
        "--log-level",
        "error",
    ]
    process = subprocess.Popen([*command, *options], cwd=ROOT, env=bench.site.environment | {"REDIS_URL": redis_url})
    try:
        wait_until(lambda: _listens(port), 30, "the comparison server")
        yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)
    finally:
        process.kill()  # it would wait for its streams
        process.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
