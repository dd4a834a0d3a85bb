"""Malicious responses of drivers: clients receive one valid response of ours, and the next one is unaffected."""

import http.client
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import requests

from mms.gateway import routes
from mms.gateway.app import GatewayApp
from mms.gateway.forward import Gateway
from tests.asgi_server import Server
from tests.gateway_server import GatewayServer
from tests.integration.mms.test_gateway import AUTHORIZED, OK, Peer, read_request, route
from tests.support.clock import quiet_seconds

START = b"HTTP/1.1 200 OK\r\n"
EVIL = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nset-cookie: evil=1\r\ncontent-length: 4\r\n\r\nEVIL"
LENGTH = b"content-length: %d\r\n\r\n" % len(EVIL) + EVIL

ANSWERS = {
    **{
        f"status {status} with a body": b"HTTP/1.1 %d X\r\n" % status + LENGTH
        for status in (100, 101, 102, 103, 199, 204, 205, 206, 226, 300, 304, 399, 600, 999)
    },
    **{
        f"status {status} that leads elsewhere": b"HTTP/1.1 %d X\r\nlocation: //evil.example/\r\n" % status + LENGTH
        for status in (301, 302, 303, 307, 308)
    },
    "status 0": b"HTTP/1.1 000 X\r\n" + LENGTH,
    "status of four digits": b"HTTP/1.1 2000 X\r\n" + LENGTH,
    "two answers at once": OK + EVIL,
    "an answer and half of another": OK + EVIL[:-2],
    "an answer and garbage": OK + b"\0\0garbage\r\n\r\n",
    "both lengths": START + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + EVIL,
    "both lengths the other way": START + b"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n" + EVIL,
    "two lengths": START + b"content-length: 2\r\ncontent-length: 4\r\n\r\n{}" + EVIL,
    "a length that is none": START + b"content-length: 2x\r\n\r\n{}" + EVIL,
    "a negative length": START + b"content-length: -2\r\n\r\n{}" + EVIL,
    "a signed length": START + b"content-length: +2\r\n\r\n{}" + EVIL,
    "an immense length": START + b"content-length: 99999999999999999999999\r\n\r\n{}" + EVIL,
    "odd transfer encoding": START + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n" + EVIL,
    "negative chunk": START + b"transfer-encoding: chunked\r\n\r\n-1\r\n" + EVIL,
    "trailers": START + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nset-cookie: evil=1\r\n\r\n",
    "an obsolete fold": b"HTTP/1.1 200 OK\r\nretry-after: 1\r\n set-cookie: evil=1\r\ncontent-length: 2\r\n\r\n{}",
    "a bare carriage return": b"HTTP/1.1 200 OK\r\nretry-after: 1\rset-cookie: evil=1\r\ncontent-length: 2\r\n\r\n{}",
    "a bare line feed": b"HTTP/1.1 200 OK\nretry-after: 1\nset-cookie: evil=1\ncontent-length: 2\n\n{}",
    "NUL in a header": b"HTTP/1.1 200 OK\r\nretry-after: 1\0\r\ncontent-length: 2\r\n\r\n{}",
    "a retry-after of markup": b"HTTP/1.1 503 X\r\nretry-after: <script>\r\ncontent-length: 2\r\n\r\n{}",
    "a retry-after for ever": b"HTTP/1.1 503 X\r\nretry-after: 99999999999\r\ncontent-length: 2\r\n\r\n{}",
    "every header that means something": b"HTTP/1.1 200 OK\r\n"
    + b"".join(
        name + b": evil\r\n"
        for name in (
            b"set-cookie",
            b"set-cookie2",
            b"content-type",
            b"content-encoding",
            b"content-security-policy",
            b"x-content-type-options",
            b"cache-control",
            b"clear-site-data",
            b"access-control-allow-origin",
            b"access-control-allow-credentials",
            b"strict-transport-security",
            b"public-key-pins",
            b"www-authenticate",
            b"proxy-authenticate",
            b"location",
            b"refresh",
            b"link",
            b"alt-svc",
            b"service-worker-allowed",
            b"sourcemap",
            b"x-accel-redirect",
            b"x-accel-buffering",
            b"x-sendfile",
            b"upgrade",
            b"keep-alive",
            b"te",
            b"trailer",
            b"hx-redirect",
            b"hx-trigger",
            b"report-to",
            b"nel",
            b"server",
            b"via",
            b"date",
        )
    )
    + b"content-length: 2\r\n\r\n{}",
    "a page": b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 29\r\n\r\n<script>alert(origin)</script",
    "no HTTP": b"SSH-2.0-x\r\n\r\n",
    "another version": b"HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\n{}",
    "an old version": b"HTTP/0.9 200 OK\r\n\r\n{}",
    "a request": b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    "nothing": b"",
}  # fmt: skip
OURS = {
    "content-type",
    "x-content-type-options",
    "content-security-policy",
    "cache-control",
    "content-length",
    "retry-after",
    "connection",
    "date",
    "server",
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "routes"


@pytest.fixture
def front(directory: Path) -> Iterator[GatewayServer]:
    with GatewayServer(directory) as server:
        yield server


def problem(front: GatewayServer, path: str, method: str) -> str:
    """Return what is wrong with a response, or with the next one on the same connection; "" if nothing is."""
    connection = http.client.HTTPConnection("127.0.0.1", int(front.url.rpartition(":")[2]), timeout=20)
    for turn in ("hostile", "clean"):
        headers = {**AUTHORIZED, "X-Request-Id": turn}
        connection.request(method, path, b"x" if method == "POST" else None, headers)
        answer = connection.getresponse()
        body = answer.read()
        sent = {name.lower(): value for name, value in answer.getheaders()}
        if foreign := sent.keys() - OURS:
            return f"{turn}: foreign headers {foreign}"
        if sent["content-type"] != "application/json" or not sent["content-security-policy"].startswith("sandbox;"):
            return f"{turn}: could act on our origin: {sent}"
        if sent["x-content-type-options"] != "nosniff" or "evil" in str(sent):
            return f"{turn}: {sent}"
        if not (200 <= answer.status < 204 or 400 <= answer.status < 600):
            return f"{turn}: status {answer.status}"
        if turn == "clean" and (answer.status, body) != (200, b"" if method == "HEAD" else b'"ok"'):
            return f"the next answer is {answer.status} {body[:40]!r}"
        if not sent.get("retry-after", "1").isdigit() or len(sent.get("retry-after", "1")) > 5:
            return f"retry-after {sent['retry-after']!r}"
    connection.close()
    return ""


@pytest.mark.slow
def test_no_response_of_a_driver_acts_on_our_origin(
    front: GatewayServer, directory: Path, tmp_path: Path, record: dict[str, object]
) -> None:
    found, tried = [], 0
    for number, (name, answer) in enumerate(ANSWERS.items()):

        def script(connection: socket.socket, _: int, answer: bytes = answer) -> None:
            with suppress(OSError):  # the gateway closed the connection
                while request := read_request(connection):
                    clean = b"x-request-id: clean" in request
                    connection.sendall(OK if clean else answer)
                    if not clean and not answer:
                        return

        peer = Peer(tmp_path / f"p{number}", script)
        for method, path in (("POST", "score"), ("GET", ""), ("GET", "swagger.json"), ("HEAD", "swagger.json")):
            service = f"svc-{number}-{method}-{len(path)}"
            routes.write(directory, route(peer.address, service_id=service, timeout=0.5))
            if reason := problem(front, f"/scoring/{service}/{path}", method):
                found.append(f"{name}, {method} {path}: {reason}")
            tried += 1
    record |= {"hostile answers of drivers": tried, "findings": len(found)}
    assert not found, "\n".join(found)


FLOODS = {
    "headers": (b"HTTP/1.1 200 OK\r\n", b"x%d: " + b"y" * 60_000 + b"\r\n"),
    "one header": (b"HTTP/1.1 200 OK\r\nx: ", b"y" * 60_000),
    "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\nx: y\r\n\r\n" * 2000),
    "extensions of a chunk": (START + b"transfer-encoding: chunked\r\n\r\n1;", b"x" * 60_000),
    "trailers": (START + b"transfer-encoding: chunked\r\n\r\n0\r\n", b"x%d: " + b"y" * 60_000 + b"\r\n"),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_driver_cannot_exhaust_the_gateways_memory(
    front: GatewayServer, directory: Path, tmp_path: Path, kind: str
) -> None:
    """During one request, a local socket can carry gigabytes."""
    sent = 0

    def script(connection: socket.socket, _: int) -> None:
        nonlocal sent
        read_request(connection)
        first, again = FLOODS[kind]
        with suppress(OSError):  # the gateway closed the connection
            connection.sendall(first)
            while sent < 400 << 20:
                part = again.replace(b"%d", b"%d" % sent)
                connection.sendall(part)
                sent += len(part)

    routes.write(directory, route(Peer(tmp_path / "p", script).address, timeout=8.0))
    before, began = psutil.Process(os.getpid()).memory_info().rss, time.monotonic()
    answer = requests.post(f"{front.url}/scoring/svc-1/score", data="x", headers=AUTHORIZED, timeout=20)
    assert (answer.status_code, json.loads(answer.content)["error"]["code"]) == (502, "BadAnswer")
    assert sent < 50 << 20
    assert quiet_seconds(time.monotonic() - began) < 3
    assert psutil.Process(os.getpid()).memory_info().rss - before < 50 << 20


@pytest.mark.parametrize(
    "host", ["models.example.com", "models.example.com:8000", "10.0.0.5", "localhost.evil.example", ""]
)
def test_metrics_are_not_available_through_a_silent_proxy(directory: Path, host: str) -> None:
    """Behind a local proxy all clients come from 127.0.0.1, but they request another host name."""
    with GatewayServer(directory) as front:
        url = f"{front.url}/scoring/metrics"
        assert requests.get(url, headers={"Host": host}).status_code in {400, 403}
        for local in ("localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000"):
            assert requests.get(url, headers={"Host": local}).status_code == 200
        for header in ("X-Forwarded-Host", "X-Forwarded-Proto", "True-Client-IP", "CF-Connecting-IP", "Via"):
            assert requests.get(url, headers={header: "127.0.0.1"}).status_code == 403


def test_metrics_are_not_available_to_clients_that_claim_to_be_local(directory: Path) -> None:
    """uvicorn trusts the client address that a local proxy forwards."""
    with Server(GatewayApp(Gateway(directory)), proxy_headers=True) as front:
        for said in ("127.0.0.1", "::1", "1.2.3.4, 127.0.0.1", "127.0.0.1, 1.2.3.4"):
            assert requests.get(f"{front.url}/scoring/metrics", headers={"X-Forwarded-For": said}).status_code == 403
