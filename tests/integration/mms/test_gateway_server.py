"""The gateway's own HTTP server, its program, and its mount in the web server."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import requests

from mms.gateway import routes
from mms.gateway.app import GatewayApp
from mms.gateway.connection import MAX_HEAD_BYTES, ClientConnection
from mms.gateway.forward import Gateway
from tests.asgi_server import Server
from tests.gateway_server import GatewayServer
from tests.integration.mms.test_gateway import AUTHORIZED, DRIVER, KEY, OK, Peer, code, read_request, route
from tests.ports import free_port
from tests.scoring_program import Program
from tests.site import wait_until

ORIGIN = "https://app.example"
HEAD = f"POST /scoring/svc-1/score HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "routes"


@pytest.fixture
def front(directory: Path) -> Iterator[GatewayServer]:
    with GatewayServer(directory) as server:
        yield server


@pytest.fixture
def service(directory: Path, tmp_path: Path) -> Peer:
    """Route to a service that answers every request with "ok"."""

    def script(connection: socket.socket, _: int) -> None:
        while read_request(connection):
            connection.sendall(OK)

    peer = Peer(tmp_path / "service", script)
    routes.write(directory, route(peer.address))
    return peer


def send(front: GatewayServer, data: bytes) -> bytes:
    """Send bytes on a connection. Return everything that arrives until the gateway closes it."""
    with socket.create_connection(("127.0.0.1", front.port), timeout=30) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(65536), b""))


# --- HTTP -------------------------------------------------------------------------------------------------------------


def test_pipelined_requests_are_answered_in_order(front: GatewayServer, service: Peer) -> None:
    score = f"{HEAD}content-length: 1\r\n\r\nx".encode()
    last = b"GET /scoring/none/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    answers = send(front, score * 20 + b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n" + score + last)
    statuses = [part[:3] for part in answers.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200"] * 22 + [b"404"]
    assert answers.count(b'\r\n\r\n"ok"') == 21
    assert service.connections == 1


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: " + b"9" * 5000 + b"\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"y" * MAX_HEAD_BYTES, 431),
        (b"GET /" + b"y" * MAX_HEAD_BYTES, 431),
        (b"POST /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\nx", 413),
    ],
)
def test_a_malformed_request_is_answered_and_its_connection_closed(
    front: GatewayServer, service: Peer, data: bytes, status: int
) -> None:
    answer = send(front, data)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nconnection: close\r\n" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"]
    assert requests.post(f"{front.url}/scoring/svc-1/score", data="x", headers=AUTHORIZED, timeout=30).ok


def test_a_client_that_is_still_sending_receives_an_early_answer(front: GatewayServer, service: Peer) -> None:
    answer = requests.post(f"{front.url}/scoring/svc-1/score", data=b"x" * 30_000_000, headers=AUTHORIZED, timeout=30)
    assert code(answer) == (413, "BodyTooLarge")
    wait_until(lambda: not front.gateway.buffered_bytes, 30, "the memory of the body to be released")


def test_a_client_that_expects_100_continue_receives_it(front: GatewayServer, service: Peer) -> None:
    with socket.create_connection(("127.0.0.1", front.port), timeout=30) as connection:
        connection.sendall(f"{HEAD}content-length: 1\r\nexpect: 100-continue\r\n\r\n".encode())
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"x")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_idle_and_slow_connections_are_closed(front: GatewayServer, service: Peer) -> None:
    """An idle one without an answer, and one that stops sending a request with 408."""
    parts = {"idle": b"", "head": b"GET / HTTP", "body": f"{HEAD}content-length: 2\r\n\r\nx".encode()}
    with ExitStack() as stack:
        clients = {}
        for name, part in parts.items():
            client = stack.enter_context(socket.create_connection(("127.0.0.1", front.port), timeout=30))
            client.sendall(part)
            clients[name] = client
        begun = [False, True, True]
        wait_until(lambda: sorted(bool(c._incoming) for c in [*front.server.connections]) == begun, 30, "all three")
        front.call(lambda: _age(front.server.connections, 3600))
        answers = {name: client.recv(1000)[:12] for name, client in clients.items()}
    assert answers == {"idle": b"", "head": b"HTTP/1.1 408", "body": b"HTTP/1.1 408"}
    wait_until(lambda: not front.server.connections, 30, "every connection to be closed")


def _age(connections: set[ClientConnection], seconds: float) -> None:
    """Make connections look as if nothing has happened on them for so long."""
    for connection in connections:
        connection._touched -= seconds
        if connection._incoming:
            connection._incoming.head.started -= seconds


# --- browsers ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def browser_front(directory: Path) -> Iterator[GatewayServer]:
    with GatewayServer(directory, allowed_origins=[ORIGIN]) as server:
        yield server


PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}


def test_a_browser_application_of_an_allowed_origin_can_score(browser_front: GatewayServer, service: Peer) -> None:
    url = f"{browser_front.url}/scoring/svc-1/score"
    preflight = requests.options(url, headers={"Origin": ORIGIN, **PREFLIGHT}, timeout=30)
    assert (preflight.status_code, preflight.content) == (204, b"")
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert {"authorization", "content-type"} <= set(preflight.headers["access-control-allow-headers"].split(", "))
    assert preflight.headers["vary"] == "origin"
    answer = requests.post(url, data="x", headers={"Origin": ORIGIN, **AUTHORIZED}, timeout=30)
    assert (answer.json(), answer.headers["access-control-allow-origin"]) == ("ok", ORIGIN)
    assert "access-control-allow-credentials" not in answer.headers
    refused = requests.post(url, data="x", headers={"Origin": ORIGIN}, timeout=30)
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, ORIGIN)


@pytest.mark.parametrize("origin", ["https://evil.example", "https://app.example.evil.example", "null", ORIGIN + "/"])
def test_other_origins_cannot(browser_front: GatewayServer, service: Peer, origin: str) -> None:
    url = f"{browser_front.url}/scoring/svc-1/score"
    assert code(requests.options(url, headers={"Origin": origin, **PREFLIGHT}, timeout=30))[0] == 405
    answer = requests.post(url, data="x", headers={"Origin": origin, **AUTHORIZED}, timeout=30)
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["vary"] == "origin"


def test_without_the_setting_no_origin_can(front: GatewayServer, service: Peer) -> None:
    url = f"{front.url}/scoring/svc-1/score"
    assert requests.options(url, headers={"Origin": ORIGIN, **PREFLIGHT}, timeout=30).status_code == 405
    answer = requests.post(url, data="x", headers={"Origin": ORIGIN, **AUTHORIZED}, timeout=30)
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]


def test_all_origins_can_be_allowed(directory: Path, service: Peer) -> None:
    with GatewayServer(directory, allowed_origins=["*"]) as front:
        url = f"{front.url}/scoring/svc-1/score"
        assert requests.options(url, headers={"Origin": "null", **PREFLIGHT}, timeout=30).status_code == 204


# --- programs ---------------------------------------------------------------------------------------------------------


@contextmanager
def gateway_program(port: int, directory: Path, metrics: Path) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-m", "mms.gateway", "--port", str(port), "--routes", str(directory), "--share-port"]
    process = subprocess.Popen([*command, "--metrics", str(metrics)])
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def test_processes_share_a_port_and_add_up_their_metrics(directory: Path, service: Peer, tmp_path: Path) -> None:
    port, metrics = free_port(), tmp_path / "metrics"
    url = f"http://127.0.0.1:{port}/scoring"

    def counted() -> int:
        lines = requests.get(f"{url}/metrics", timeout=30).text.splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith(TOTAL)), 0)

    with gateway_program(port, directory, metrics) as first, gateway_program(port, directory, metrics) as second:
        wait_until(lambda: len(_listeners(port)) == 2, 30, "both processes to listen")
        for _ in range(40):  # each on a connection of its own, so the kernel distributes them
            assert requests.post(f"{url}/svc-1/score", data="x", headers=AUTHORIZED, timeout=30).ok
        for _ in range(10):  # whichever process answers
            wait_until(lambda: counted() == 40, 30, "the requests of both processes to be counted")
        assert service.connections == 2, "one per process"
        first.terminate()
        assert first.wait(30) == 0
        assert requests.post(f"{url}/svc-1/score", data="x", headers=AUTHORIZED, timeout=30).ok
        assert counted() == 41
        second.terminate()
        second.wait(30)
    with gateway_program(port, directory, metrics):
        wait_until(lambda: _listeners(port), 30, "the next process to listen")
        assert requests.post(f"{url}/svc-1/score", data="x", headers=AUTHORIZED, timeout=30).ok
        assert counted() == 42, "counters continue after a restart"


TOTAL = 'mms_gateway_requests_total{service="svc-1",code="200"}'


def _listeners(port: int) -> list[str]:
    """Return the lines of /proc/net/tcp for sockets that listen on `port`."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return [line for line in lines if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"]


def test_a_stopping_gateway_completes_the_requests_in_progress(directory: Path, tmp_path: Path) -> None:
    port = free_port()
    with Program(tmp_path, DRIVER) as program, gateway_program(port, directory, tmp_path / "metrics") as process:
        program.wait_until_ready()
        routes.write(directory, route(f"unix:{program.address}"))
        wait_until(lambda: _listeners(port), 30, "the gateway to listen")
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(f"{HEAD}content-length: 7\r\n\r\nsleep 1".encode())
            wait_until(lambda: program.request("GET", "/")[1]["inFlight"], 30, "the request to arrive")
            process.send_signal(signal.SIGTERM)
            wait_until(lambda: not _listeners(port), 30, "the gateway to stop accepting connections")
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nconnection: close\r\n" in answer
        assert process.wait(30) == 0


def test_the_program_loads_neither_django_nor_an_asgi_server() -> None:
    code = "import sys, mms.gateway.__main__; print(*sys.modules)"
    loaded = set(subprocess.check_output([sys.executable, "-c", code], text=True, env=os.environ).split())
    assert "mms.gateway.server" in loaded
    assert not loaded & {"django", "celery", "uvicorn", "requests", "asgiref", "dashboard"}


# --- the mount in the web server --------------------------------------------------------------------------------------


@pytest.fixture
def mounted(directory: Path) -> Iterator[Server]:
    with Server(GatewayApp(Gateway(directory, allowed_origins=[ORIGIN]))) as server:
        yield server


def test_the_web_server_serves_older_scoring_urls(mounted: Server, service: Peer) -> None:
    url = f"{mounted.url}/scoring/svc-1/score"
    answer = requests.post(url, data="x", headers={"Origin": ORIGIN, **AUTHORIZED}, timeout=30)
    assert (answer.json(), answer.headers["access-control-allow-origin"]) == ("ok", ORIGIN)
    assert answer.headers["content-security-policy"].startswith("sandbox;")
    assert code(requests.post(url, data="x", timeout=30)) == (401, "Unauthorized")
    assert code(requests.post(url, data="x" * 1001, headers=AUTHORIZED, timeout=30)) == (413, "BodyTooLarge")
    chunked = requests.post(url, data=iter([b"x" * 600] * 2), headers=AUTHORIZED, timeout=30)
    assert code(chunked) == (413, "BodyTooLarge")
    assert TOTAL + " 1" in requests.get(f"{mounted.url}/scoring/metrics", timeout=30).text


def test_a_wrong_key_is_rejected_there_before_the_body_is_read(mounted: Server, service: Peer) -> None:
    with socket.create_connection(("127.0.0.1", mounted.port), timeout=30) as connection:
        connection.sendall(b"POST /scoring/svc-1/score HTTP/1.1\r\nhost: x\r\ncontent-length: 900\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 401 ")


def test_a_request_there_is_canceled_when_its_client_disconnects(
    mounted: Server, directory: Path, tmp_path: Path
) -> None:
    requested, left = [], []

    def script(connection: socket.socket, _: int) -> None:
        requested.append(read_request(connection))
        connection.settimeout(30)
        left.append(connection.recv(1))

    routes.write(directory, route(Peer(tmp_path / "p", script).address, timeout=30))
    with socket.create_connection(("127.0.0.1", mounted.port)) as connection:
        connection.sendall(f"{HEAD}content-length: 0\r\n\r\n".encode())
        wait_until(lambda: requested, 30, "the request to arrive")
    wait_until(lambda: left == [b""], 30, "the connection to the service to close")
