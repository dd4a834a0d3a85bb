"""Simulated browser tabs, which read the event stream and fetch their list again as static/live.js does."""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast

import httptools

from tests.bench import load

DELAY_SECONDS = 0.2  # of static/live.js: events come in bursts
MAX_SPREAD_SECONDS = 0.5  # of static/live.js: tabs spread their requests, by 2 ms for each listener
OPENING = 200  # streams that open at the same time
OPEN_SECONDS = 120


class Tab(asyncio.Protocol):
    """One tab. `heard` is called for each event with its arrival in seconds since the epoch, its name and data."""

    def __init__(self, request: bytes, heard: Callable[["Tab", float, bytes, bytes], None]) -> None:
        self.request, self.heard = request, heard
        self.live: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.listeners = 1
        self.buffer = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's transports don't inherit from asyncio's
        self.parser = httptools.HttpResponseParser(self)
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_headers_complete(self) -> None:
        status = self.parser.get_status_code()
        if status != 200 and not self.live.done():
            self.live.set_exception(ConnectionError(f"the stream was refused with status {status}"))

    def on_body(self, body: bytes) -> None:
        now = time.time()
        *events, self.buffer = (self.buffer + body).split(b"\n\n")
        for event in events:
            self._read(now, event)

    def _read(self, now: float, event: bytes) -> None:
        fields = dict(line.split(b": ", 1) for line in event.split(b"\n") if b": " in line)
        name, data = fields.get(b"event", b""), fields.get(b"data", b"{}")
        if name in {b"live", b"alive"}:
            self.listeners = json.loads(data).get("listeners", 1)
        if name == b"live" and not self.live.done():
            self.live.set_result(None)
        self.heard(self, now, name, data)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.live.done():
            self.live.set_exception(ConnectionError("the stream ended before it was live"))

    @property
    def spread_seconds(self) -> float:
        """The time over which tabs spread their requests."""
        return min(0.002 * self.listeners, MAX_SPREAD_SECONDS)


async def open_tabs(url: str, tabs: Sequence[Tab]) -> float:
    """Open all streams. Return the seconds until each is live. Raise ConnectionError if one is refused."""
    loop, limit = asyncio.get_running_loop(), asyncio.Semaphore(OPENING)

    async def connect(tab: Tab) -> None:
        async with limit:
            await loop.create_connection(lambda: tab, *load.host_and_port(url))
            await tab.live

    started = time.perf_counter()
    async with asyncio.timeout(OPEN_SECONDS):
        await asyncio.gather(*map(connect, tabs))
    return time.perf_counter() - started


async def fetch(tab: Tab, url: str, request: bytes) -> float:
    """Fetch the list as the tab does after an event. Return when it arrived. Raise ConnectionError if it fails."""
    await asyncio.sleep(DELAY_SECONDS + tab.spread_seconds * random.random())
    done = asyncio.get_running_loop().create_future()
    client = load.Client(iter([request]), float("inf"), done)
    await asyncio.get_running_loop().create_connection(lambda: client, *load.host_and_port(url))
    await done
    if client.failed or not client.latencies:
        raise ConnectionError("a list couldn't be fetched")
    return time.time()


async def closed(tabs: Sequence[Tab], work: Awaitable[Any]) -> Any:
    """Await the work, then close the tabs."""
    try:
        return await work
    finally:
        for tab in tabs:
            if hasattr(tab, "transport"):
                tab.transport.abort()
        await asyncio.sleep(1)
