"""A small load generator for every compared server: keep-alive HTTP/1.1 clients on one event loop."""

import asyncio
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import httptools
import uvloop


@dataclass(frozen=True)
class Result:
    """Result of one run, with latencies in milliseconds."""

    requests: int
    failed: int
    seconds: float
    median: float
    p95: float
    p99: float
    longest: float

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def percentile(values: list[float], share: float) -> float:
    """Return the smallest value that `share` (0 to 1) of the values don't exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Client(asyncio.Protocol):
    """Connection that sends the next request as soon as the last response is complete."""

    def __init__(self, requests: Iterator[bytes | None], until: float, done: asyncio.Future[None]) -> None:
        self.requests, self.until, self.done = requests, until, done
        self.latencies: list[float] = []
        self.failed = 0
        self.is_waiting = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's transports don't inherit from asyncio's
        self.send()

    def send(self) -> None:
        request = next(self.requests, None) if time.perf_counter() < self.until else None
        if request is None:
            self.transport.close()
            return
        self.parser = httptools.HttpResponseParser(self)
        self.started = time.perf_counter()
        self.is_waiting = True
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        self.is_waiting = False
        self.latencies.append((time.perf_counter() - self.started) * 1000)
        self.failed += self.parser.get_status_code() >= 400
        asyncio.get_running_loop().call_soon(self.send)

    def connection_lost(self, error: Exception | None) -> None:
        self.failed += self.is_waiting
        if not self.done.done():
            self.done.set_result(None)


def encode(method: str, url: str, body: bytes = b"", headers: dict[str, str] | None = None) -> bytes:
    """Return the bytes of one request. `url` may be http://… or unix:/path/to/socket:/path."""
    host, path = ("localhost", url.rpartition(":")[2]) if url.startswith("unix:") else _host_and_path(url)
    lines = {"Host": host, "Content-Type": "application/json", "Content-Length": str(len(body))} | (headers or {})
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def host_and_port(url: str) -> tuple[str, int]:
    """Return where the server of the URL listens."""
    parts = urlsplit(url)
    return str(parts.hostname), parts.port or 80


def _host_and_path(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.netloc, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


async def _run(url: str, requests: Iterator[bytes | None], clients: int, seconds: float) -> Result:
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    protocols = []
    for _ in range(clients):

        def factory() -> Client:
            return Client(requests, started + seconds, loop.create_future())

        if url.startswith("unix:"):
            _, protocol = await loop.create_unix_connection(factory, url.removeprefix("unix:").rpartition(":")[0])
        else:
            _, protocol = await loop.create_connection(factory, *host_and_port(url))
        protocols.append(protocol)
    await asyncio.gather(*(protocol.done for protocol in protocols))
    took = time.perf_counter() - started
    latencies = [latency for protocol in protocols for latency in protocol.latencies]
    return Result(
        requests=len(latencies),
        failed=sum(protocol.failed for protocol in protocols),
        seconds=took,
        median=statistics.median(latencies),
        p95=percentile(latencies, 0.95),
        p99=percentile(latencies, 0.99),
        longest=max(latencies),
    )


def run(url: str, make: Callable[[int], bytes | None], *, clients: int, seconds: float, at_most: int = 10**9) -> Result:
    """Send `make(0)`, `make(1)`, ... from `clients` connections for `seconds`, or until `at_most` were sent.

    `make` returns the bytes of one request (see `encode`), or None to end the connection that asks for one. Raise
    OSError if the server is unreachable.
    """
    return uvloop.run(_run(url, map(make, range(at_most)), clients, seconds))


@contextmanager
def in_background(work: Callable[[], Any]) -> Iterator[Callable[[], Any]]:
    """Run `work` in a process of its own. The yielded function waits for its result."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)

    def report() -> None:
        there.send(work())

    process = context.Process(target=report, daemon=True)
    process.start()
    there.close()
    try:
        yield here.recv
    finally:
        process.terminate()
        process.join()
