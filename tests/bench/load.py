"""A small load generator for every compared server: keep-alive HTTP/1.1 clients on one event loop."""

import asyncio
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast
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

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def percentile(values: list[float], share: float) -> float:
    """Return the smallest value that `share` (0 to 1) of the values don't exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Client(asyncio.Protocol):
    """Connection that sends the next request as soon as the last response is complete."""

    def __init__(self, requests: Iterator[bytes], until: float, done: asyncio.Future[None]) -> None:
        self.requests, self.until, self.done = requests, until, done
        self.latencies: list[float] = []
        self.failed = 0
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
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        self.latencies.append((time.perf_counter() - self.started) * 1000)
        self.failed += self.parser.get_status_code() >= 400
        asyncio.get_running_loop().call_soon(self.send)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


def encode(method: str, url: str, body: bytes = b"", headers: dict[str, str] | None = None) -> bytes:
    """Return the bytes of one request. `url` may be http://… or unix:/path/to/socket:/path."""
    host, path = ("localhost", url.rpartition(":")[2]) if url.startswith("unix:") else _host_and_path(url)
    lines = {"Host": host, "Content-Type": "application/json", "Content-Length": str(len(body))} | (headers or {})
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def _host_and_path(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.netloc, (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


async def _run(url: str, requests: Iterator[bytes], clients: int, seconds: float) -> Result:
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    protocols = []
    for _ in range(clients):

        def factory() -> Client:
            return Client(requests, started + seconds, loop.create_future())

        if url.startswith("unix:"):
            _, protocol = await loop.create_unix_connection(factory, url.removeprefix("unix:").rpartition(":")[0])
        else:
            parts = urlsplit(url)
            _, protocol = await loop.create_connection(factory, str(parts.hostname), parts.port or 80)
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
    )


def run(url: str, make: Callable[[int], bytes], *, clients: int, seconds: float, at_most: int = 10**9) -> Result:
    """Send `make(0)`, `make(1)`, … from `clients` connections for `seconds`, or until `at_most` were sent.

    `make` returns the bytes of one request (see `encode`). Raise OSError if the server is unreachable.
    """
    return uvloop.run(_run(url, map(make, range(at_most)), clients, seconds))
