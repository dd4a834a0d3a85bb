"""Time limits of calls to servers. A call must end before its claim expires, which marks its worker as dead."""

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from deployments import timing
from deployments.client import errors, http, wire
from deployments.client.client import MMSClient
from deployments.mirror import refresh
from deployments.resources import logs
from tests.support.clock import quiet_seconds

REQUEST = wire.NewImage("m1", "", "registry.example", "puller", "secret" * 100_000)
DEADLINE = 0.6
SLACK = 2.0  # seconds that a loaded machine may add

Talk = Callable[[socket.socket], None]


@contextmanager
def server(talk: Talk) -> Iterator[str]:
    """Run a server whose connections are handled by a function of the test."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=5)
    done = threading.Event()

    def serve() -> None:
        while not done.is_set():
            try:
                link, _ = listening.accept()
                with link:
                    talk(link)
            except OSError:
                continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    done.set()
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(5)


def dripping(*, first: bytes = b"", drop: bytes = b"x") -> Talk:
    """Send `first`, then `drop` every tenth of a second, until the client disconnects."""

    def talk(link: socket.socket) -> None:
        link.recv(1_000_000)
        link.sendall(first)
        while True:
            link.sendall(drop)
            time.sleep(0.1)

    return talk


def flooding(*, first: bytes = b"", wave: bytes) -> Talk:
    def talk(link: socket.socket) -> None:
        link.recv(1_000_000)
        link.sendall(first)
        while True:
            link.sendall(wave)

    return talk


def silent(link: socket.socket) -> None:
    while link.recv(1_000_000):
        pass


def deaf(link: socket.socket) -> None:
    """Read nothing, so that sent data fills the buffers."""
    time.sleep(DEADLINE + 1)


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
GZIPPED = OK + b"Content-Encoding: gzip\r\nContent-Length: 9000000000000\r\n\r\n"
EMPTY_BLOCK = b"\x00\x00\x00\xff\xff"  # deflate block without data that isn't the last
TALKS: dict[str, Talk] = {
    "drips the status line": dripping(),
    "drips one header": dripping(first=OK + b"X-Long: "),
    "drips many headers": dripping(first=OK, drop=b"X: y\r\n"),
    "drips 100 Continue": dripping(drop=b"HTTP/1.1 100 Continue\r\n\r\n"),
    "floods with 100 Continue": flooding(wave=b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "drips the body": dripping(first=OK + b"Content-Length: 100000\r\n\r\n"),
    "drips a body without length": dripping(first=OK + b"\r\n"),
    "drips the size of a chunk": dripping(first=CHUNKED, drop=b"0"),
    "drips chunks": dripping(first=CHUNKED, drop=b"1\r\nx\r\n"),
    "drips trailers": dripping(first=CHUNKED + b"0\r\n", drop=b"X: y\r\n"),
    "floods with trailers": flooding(first=CHUNKED + b"0\r\n", wave=b"X: y\r\n" * 10_000),
    "drips a header of gzip": dripping(first=GZIPPED + b"\x1f\x8b\x08\x10" + b"\0" * 6),
    "floods with gzip that holds nothing": flooding(first=GZIPPED + gzip.compress(b"")[:10], wave=EMPTY_BLOCK * 10_000),
    "never says anything": silent,
    "never reads": deaf,
}


def call(url: str) -> tuple[errors.MMSError, float]:
    with MMSClient(url, "s", "g", "a", token="t", api_version="1", read_timeout=0.5, deadline=DEADLINE) as client:
        begun = time.monotonic()
        with pytest.raises(errors.MMSError) as raised:
            client.create_image(REQUEST, "request-1")
        return raised.value, time.monotonic() - begun


@pytest.mark.parametrize("how", TALKS)
def test_a_call_ends_within_its_time_limit_whatever_the_server_does(how: str) -> None:
    with server(TALKS[how]) as url:
        error, took = call(url)
    assert took < DEADLINE + SLACK
    assert isinstance(error, errors.OutcomeUnknownError)


BIG = {
    "a header of 100 kB": OK + b"X-Long: " + b"x" * 100_000 + b"\r\n\r\n",
    "ten thousand headers": OK + b"X: y\r\n" * 10_000 + b"\r\n",
    "a status line of 1 MB": b"HTTP/1.1 200 " + b"O" * 1_000_000 + b"\r\n\r\n",
    "no HTTP": b"SSH-2.0-OpenSSH_9.9\r\n",
    "a bomb of gzip": OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"[" * 60_000_000),
    "a body of 5 MB": OK + b"\r\n" + b"[" * 5_000_000,
    "a length that is none": OK + b"Content-Length: 1, 2\r\n\r\n{}",
    "an unknown encoding": OK + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("what", BIG)
def test_an_oversized_response_is_rejected(what: str) -> None:
    def talk(link: socket.socket) -> None:
        link.recv(1_000_000)
        link.sendall(BIG[what])

    with server(talk) as url:
        error, took = call(url)
    assert took < DEADLINE + SLACK
    assert isinstance(error, errors.NoResponseError)


@contextmanager
def black_hole() -> Iterator[str]:
    """Return a port that neither accepts nor refuses connections, because its backlog is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening:
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        for filler in fillers:
            filler.close()


def test_a_request_that_never_connects_was_not_sent() -> None:
    with black_hole() as url:
        error, took = call(url)
    assert took < DEADLINE + SLACK
    assert isinstance(error, errors.UnreachableError)
    assert "took too long" in str(error)


def test_nothing_is_sent_before_the_handshake_ends() -> None:
    with server(silent) as url:
        error, took = call(url.replace("http", "https"))
    assert took < DEADLINE + SLACK
    assert isinstance(error, errors.UnreachableError)


def test_nothing_is_sent_to_a_port_without_tls() -> None:
    with server(dripping(first=b"HTTP/1.0 400 Bad Request\r\n\r\n")) as url:
        error, _ = call(url.replace("http", "https"))
    assert isinstance(error, errors.UnreachableError)


def swallow(link: socket.socket) -> None:
    """Read a request and don't answer it."""
    link.recv(100)


def test_nothing_is_sent_through_a_proxy_that_does_not_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(swallow) as proxy:
        monkeypatch.setenv("https_proxy", proxy)
        error, _ = call("https://mms.example")
    assert isinstance(error, errors.UnreachableError)


def test_nothing_is_sent_after_a_slow_dns_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    """A DNS lookup can take longer than a claim. By then another worker may process the operation."""
    got: list[bytes] = []
    find = socket.getaddrinfo

    def slowly(*args: Any, **more: Any) -> Any:
        time.sleep(DEADLINE + 0.1)
        return find(*args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", slowly)
    with server(lambda link: got.append(link.recv(100))) as url:
        error, _ = call(url.replace("127.0.0.1", "localhost"))
    assert isinstance(error, errors.UnreachableError)
    assert not any(got)


def test_a_list_of_many_pages_has_the_time_limit_of_one_response() -> None:
    def talk(link: socket.socket) -> None:
        n = 0
        while link.recv(10_000):
            time.sleep(0.2)
            n += 1
            body = b'{"value": [{"id": "m%d"}], "nextLink": "/api/more?%d"}' % (n, n)
            link.sendall(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    with server(talk) as url, MMSClient(url, "s", "g", "a", token="t", api_version="1", deadline=1.0) as client:
        begun = time.monotonic()
        with pytest.raises(errors.NoResponseError, match="not complete"):
            client.list_models()
        assert quiet_seconds(time.monotonic() - begun) < 1.0 + SLACK


def test_a_list_whose_pages_form_a_loop_is_abandoned() -> None:
    body = b'{"value": [{"id": "m"}], "nextLink": "/api/more"}'

    def talk(link: socket.socket) -> None:
        while link.recv(10_000):
            link.sendall(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    again = pytest.raises(errors.InvalidResponseError, match="returned to an earlier page")
    with server(talk) as url, MMSClient(url, "s", "g", "a", token="t", api_version="1") as client, again:
        client.list_models()


def test_every_claim_lasts_longer_than_its_calls() -> None:
    longest = http.DEADLINE_SECONDS + http.CONNECT_TIMEOUT_SECONDS
    assert longest < timing.LEASE_SECONDS - 20, "includes time to store the outcome"
    assert longest < refresh.LOCK_SECONDS - 20, "a complete list, and storing it"
    assert timing.TURN_SECONDS + longest < logs.LOCK_SECONDS, "a turn, and the call in progress at its end"
