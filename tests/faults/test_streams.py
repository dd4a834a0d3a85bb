"""Live streams under faults: a stopped or killed web process, cut connections, slow readers, and a missing Redis."""

import itertools
import json
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
import redis
from django.utils import timezone
from playwright.sync_api import Browser, Page, expect

from dashboard import live as stream
from dashboard.ops.supervisor.programs import redis_server as redis_binary
from deployments.live.events import STREAM, stream_position
from tests.asgi_server import Server
from tests.browser.test_live_script import Site as PageServer
from tests.faults.browserless import Visitor
from tests.faults.proxy import Proxy
from tests.integration.dashboard.test_stream import Reader
from tests.site import Site, wait_until
from tests.support.clock import quiet_seconds
from tests.twins import twins

ACCOUNT = "1"  # the account `local` of a new site
PER_PERSON = 17  # streams
FREE = 1_000_000  # numbers from here on aren't used by services of other tests
MUCH = 12_000_000  # bytes, more than the buffers between a stream and its reader can hold


@pytest.fixture(scope="module")
def people(site: Site) -> list[str]:
    """Return the session cookies of three viewers, because one user may not have fifty streams."""
    visitors = [Visitor(site, f"reader-{number}", "viewer") for number in range(3)]
    return ["; ".join(f"{c.name}={c.value}" for c in visitor.session.cookies) for visitor in visitors]


@pytest.fixture
def link(site: Site) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(site.data / "run" / "redis.sock"))


def announce(link: redis.Redis, key: str, label: str = "Healthy", reason: str = "") -> str:
    """Announce a change as a worker does. Return its position."""
    fields = {"account": ACCOUNT, "key": key, "state": "healthy", "label": label, "reason": reason, "stale_since": ""}
    told: Any = link.xadd(STREAM, cast(Any, fields) | {"since": timezone.now().isoformat(), "refresh": json.dumps([])})
    return str(told.decode())


def newest(link: redis.Redis) -> str:
    entries: Any = link.xrevrange(STREAM, count=1)
    return entries[0][0].decode() if entries else "0-0"


def badges(reader: Reader) -> Iterator[str]:
    """Yield the keys of the received badges until the stream ends."""
    until = time.monotonic() + 90
    while event := reader.next():
        assert time.monotonic() < until, "keep-alive messages, but no badge"
        if event["event"] == "badge":
            yield event["data"]["key"]


def web(site: Site) -> psutil.Process:
    return site.program("site:web")


def open_database_files(process: psutil.Process) -> int:
    return sum("db.sqlite3" in file.path for file in process.open_files())


# --- the web process ends


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_fifty_streams_reconnect_after_a_web_restart_and_miss_nothing(
    site: Site, people: list[str], link: redis.Redis, how: signal.Signals
) -> None:
    announce(link, "service-1")
    process, position = web(site), newest(link)
    before = open_database_files(process)
    cookies = list(itertools.islice(itertools.cycle(people), 3 * PER_PERSON))
    readers = [Reader(site.port, cookie, position) for cookie in cookies]
    for reader in readers:
        assert reader.until_live() == []
    assert len(readers) > 50
    assert open_database_files(process) <= before + 3, "a stream must not hold a database connection"

    began = time.monotonic()
    process.send_signal(how)
    for reader in readers:
        assert reader.next() == {}
    ended = time.monotonic() - began
    process.wait(10)
    gone = time.monotonic() - began
    missed = [announce(link, f"service-{number}") and f"service-{number}" for number in range(10, 20)]
    wait_until(lambda: site.health()[0] in {200, 503}, 30, "the next web process")
    back = time.monotonic() - began
    with ThreadPoolExecutor(10) as pool:
        found = list(pool.map(lambda cookie: keys_since(site, cookie, position), cookies))
    print(f"{how.name}: {len(readers)} streams ended in {ended:.2f} s, process in {gone:.2f} s, back in {back:.2f} s")
    assert gone < 10
    assert found == [missed] * len(cookies)
    wait_until(lambda: site.health()[0] == 200, 60, f"a healthy site: {site.health()}")


def keys_since(site: Site, cookie: str, position: str) -> list[str]:
    with Reader(site.port, cookie, "0", last_event_id=position) as reader:
        badges = [event for event in reader.until_live() if event["event"] == "badge"]
        return [event["data"]["key"] for event in badges]


@pytest.mark.slow
@pytest.mark.browser
def test_a_page_reconnects_its_stream_without_a_reload(
    site: Site,
    link: redis.Redis,
    browser: Browser,
) -> None:
    maker = Visitor(site, "model-maker", "scientist")
    maker.post_model("watched")
    page = page_of(maker, browser)
    badge = page.locator("[data-badge^=operation-]").first
    expect(badge).to_have_attribute("data-state", "succeeded", timeout=20_000)
    key = badge.get_attribute("data-badge")
    page.evaluate("window.same = true")
    for how in (signal.SIGTERM, signal.SIGKILL):
        expect(page.locator("#live-mark")).to_have_text("live", timeout=60_000)
        process = web(site)
        process.send_signal(how)
        process.wait(10)
        announce(link, str(key), label=f"told after {how.name}")
        expect(badge).to_have_text(f"told after {how.name}", timeout=60_000)
    assert page.evaluate("window.same")


def page_of(person: Visitor, browser: Browser) -> Page:
    """Open the viewer's list of operations in a browser."""
    context = browser.new_context(base_url=person.site.url)
    context.add_cookies(
        [{"name": c.name, "value": str(c.value), "url": person.site.url} for c in person.session.cookies]
    )
    page = context.new_page()
    page.goto("/accounts/local/operations/")
    return page


# --- requests in progress


@pytest.mark.slow
def test_partial_requests_are_cut_when_the_web_process_ends_and_leave_nothing(site: Site) -> None:
    sender = Visitor(site, "sender", "scientist")
    for how in (signal.SIGTERM, signal.SIGKILL):
        uploading, posting = begin_upload(sender), begin_post(sender)
        wait_until(lambda: list((site.data / "tmp").glob("upload-*")), 10, "the upload's file")
        process, began = web(site), time.monotonic()
        process.send_signal(how)
        assert rest_of(uploading) is not None
        assert rest_of(posting) is not None
        process.wait(10)
        print(f"{how.name}: gone in {time.monotonic() - began:.2f} s")
        assert quiet_seconds(time.monotonic() - began) < 10
        wait_until(lambda: site.health()[0] == 200, 60, f"a healthy site: {site.health()}")
        sender.upload(b"another file")
        assert list((site.data / "tmp").glob("upload-*")) == []


def begin_upload(person: Visitor) -> socket.socket:
    head = '--x\r\nContent-Disposition: form-data; name="file"; filename="m.bin"\r\n\r\n'
    kind = "multipart/form-data; boundary=x"
    return person.begin("/uploads/?account=local", kind, 100_000_000, head.encode() + bytes(3_000_000))


def begin_post(person: Visitor) -> socket.socket:
    return person.begin("/accounts/local/models/new/", "application/x-www-form-urlencoded", 1000, b"name=half")


def rest_of(connection: socket.socket) -> bytes | None:
    """Return what arrives until the connection is closed, or None if that takes more than ten seconds."""
    connection.settimeout(10)
    received = b""
    try:
        while part := connection.recv(65536):
            received += part
    except ConnectionError:
        pass
    except TimeoutError:
        return None
    return received


# --- cut connections


@pytest.fixture
def pages(live_redis: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Yield the page of the live.js tests, with every viewer signed in."""
    monkeypatch.setattr(stream, "_find_reader", lambda scope: (1, {1}))
    with Server(PageServer()) as server:
        yield server


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.django_db(transaction=True)
@twins("seconds", 10, 30)
def test_a_cut_stream_is_not_shown_as_live_and_is_correct_after_reconnecting(
    pages: Server, browser: Browser, live_redis: redis.Redis, seconds: int
) -> None:
    with ExitStack() as stack:
        proxies = [stack.enter_context(Proxy(pages.port)) for _ in range(2)]
        contexts = [stack.enter_context(browser.new_context()) for _ in proxies]
        opened = [context.new_page() for context in contexts]
        for page, proxy in zip(opened, proxies, strict=True):
            page.goto(proxy.url)
            expect(page.locator("#live-mark")).to_have_text("live")
            page.evaluate("window.same = true")
        proxies[0].drop_everything()
        proxies[1].close_all()
        announce(live_redis, "service-1", label="Ended")
        cut = time.monotonic()
        for page in opened:
            expect(page.locator("#live-mark")).not_to_have_text("live", timeout=30_000)
            expect(page.locator("#one span")).to_have_text("old")
        opened[0].wait_for_timeout(max(0, seconds - (time.monotonic() - cut)) * 1000)
        for proxy in proxies:
            proxy.restore()
        mended = time.monotonic()
        for page in opened:
            expect(page.locator("#one span")).to_have_text("Ended", timeout=30_000)
            expect(page.locator("#live-mark")).to_have_text("live", timeout=30_000)
            assert page.evaluate("window.same")
        print(f"right again {time.monotonic() - mended:.1f} s after the cut was mended")


# --- slow and disconnected readers


@pytest.mark.slow
@twins("events", 1000, 3000)
def test_a_reader_of_one_byte_a_second_is_dropped_without_delaying_others(
    site: Site, people: list[str], link: redis.Redis, events: int
) -> None:
    process = web(site)
    memory = process.memory_info().rss
    slow = open_slowly(site, people[0])
    done = threading.Event()
    threading.Thread(target=read_slowly, args=(slow, done), daemon=True).start()
    delays: list[float] = []
    with Reader(site.port, people[1], newest(link)) as reader:
        reader.until_live()
        for number in range(FREE, FREE + events):
            began = time.monotonic()
            announce(link, f"service-{number}", label="x" * (MUCH // events))
            assert next(badges(reader)) == f"service-{number}"
            delays.append(time.monotonic() - began)
    grown = (process.memory_info().rss - memory) / 1024**2
    done.set()
    received = len(rest_of(slow) or b"")
    delays.sort()
    middle, slowest = 1000 * delays[len(delays) // 2], 1000 * delays[int(0.99 * len(delays))]
    print(f"others: {middle:.1f} ms, 99 %: {slowest:.1f} ms; {grown:+.0f} MB; the slow one got {received >> 10} kB")
    assert received < MUCH
    assert slowest < 500
    assert grown < 50


def open_slowly(site: Site, cookie: str) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", site.port))
    request = f"GET /stream?position=0 HTTP/1.1\r\nHost: 127.0.0.1:{site.port}\r\nCookie: {cookie}\r\n\r\n"
    connection.sendall(request.encode())
    assert connection.recv(12) == b"HTTP/1.1 200"
    return connection


def read_slowly(connection: socket.socket, done: threading.Event) -> None:
    while not done.wait(1):
        connection.recv(1)


@pytest.mark.django_db(transaction=True)
def test_two_hundred_reset_connections_are_cleaned_up(live_redis: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 1.0)
    numbers = itertools.count()
    monkeypatch.setattr(stream, "_find_reader", lambda scope: (next(numbers), {1}))
    application = stream.Stream()
    with Server(application) as server:
        readers = [Reader(server, f"sessionid={number}", stream_position()) for number in range(200)]
        for reader in readers:
            reader.until_live()
        hub: Any = application._hub
        assert len(hub._connections) == 200
        for reader in readers:
            reset_connection(reader)
        began = time.monotonic()
        wait_until(lambda: not hub._connections, 10, "the end of all")
        print(f"200 streams forgotten in {time.monotonic() - began:.2f} s")


def reset_connection(reader: Reader) -> None:
    """Reset the connection, as a machine does that no longer knows it."""
    sock = reader.response.fp.raw._sock  # type: ignore[attr-defined] # the socket, which nothing public gives
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    reader.__exit__()


# --- Redis


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_streams_end_with_redis_are_refused_without_it_and_resync_with_an_empty_one(
    tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_find_reader", lambda scope: (1, {1}))
    path = tmp_path / "redis.sock"
    settings.REDIS_URL = f"unix://{path}"
    first = start_redis(path)
    with Server(stream.Stream()) as server:
        link = redis.Redis(unix_socket_path=str(path))
        announce(link, "service-1")
        position = newest(link)
        with Reader(server, "", position) as reader:
            assert reader.until_live() == []
            first.kill()
            first.wait(10)
            assert reader.next() == {}
        assert Reader(server, "").status == 503
        second = start_redis(path)
        try:
            with Reader(server, "", "0", last_event_id=position) as reader:
                reader.wait_longer(15)
                assert [event["event"] for event in reader.until_live()] == ["resync"]
                announce(link, "service-2")
                assert next(badges(reader)) == "service-2"
                link.flushall()
                named = (event["event"] for event in iter(reader.next, {}))
                assert next(name for name in named if name != "alive") == "resync"
                announce(link, "service-3")
                assert next(badges(reader)) == "service-3"
        finally:
            second.kill()
            second.wait(10)


def start_redis(path: Path) -> "subprocess.Popen[bytes]":
    command = [redis_binary(), "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(path.parent)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    wait_until(lambda: _answers(path), 10, "Redis")
    return process


def _answers(path: Path) -> bool:
    try:
        return bool(redis.Redis(unix_socket_path=str(path)).ping())
    except redis.ConnectionError:
        return False
