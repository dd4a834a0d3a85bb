"""The gateway under a real uvicorn, in front of real scoring programs and of misbehaving servers."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import requests

from mms.gateway import route_cache, routes, upstream
from mms.gateway.routes import Route
from tests.asgi_server import Server
from tests.gateway_server import GatewayServer
from tests.ports import free_port
from tests.scoring_program import Program
from tests.site import wait_until

KEY, OTHER = "first-key", "second-key"
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
DRIVER = """
import time
def init(): pass
def run(body):
    if body.startswith("sleep"): time.sleep(float(body.split()[1]))
    if body == "crash": __import__("os")._exit(9)
    if body == "fail": raise ValueError("bad petal")
    return body
"""


def route(address: str, **changes: Any) -> Route:
    digests = [sha256(key.encode()).hexdigest() for key in (KEY, OTHER)]
    found = {"service_id": "svc-1", "name": "iris", "revision": 1, "address": address, "key_digests": digests}
    return Route(**{**found, "body_max_bytes": 1000, "timeout": 5.0, **changes})


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "routes"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the lifetime of cached routes."""
    assert route_cache.ROUTE_CACHE_SECONDS == 1.0
    monkeypatch.setattr(route_cache, "ROUTE_CACHE_SECONDS", 0.3)


@pytest.fixture
def front(directory: Path) -> Iterator[GatewayServer]:
    with GatewayServer(directory) as server:
        yield server


@pytest.fixture
def program(tmp_path: Path, directory: Path) -> Iterator[Program]:
    with Program(tmp_path, DRIVER) as program:
        program.wait_until_ready()
        routes.write(directory, route(f"unix:{program.address}"))
        yield program


class Peer:
    """A server on a Unix socket that handles each connection with `script(connection, number)`."""

    def __init__(self, path: Path, script: Callable[[socket.socket, int], None]) -> None:
        self.address = f"unix:{path}"
        self.connections = 0
        self._script = script
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listening.accept()
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection, self.connections), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with connection:
            self._script(connection, number)


def read_request(connection: socket.socket) -> bytes:
    """Read one request with Content-Length; return b"" if the client has closed the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (part := connection.recv(65536)):
            return b""
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


OK = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\r\n"ok"'


def score(
    front: GatewayServer, body: str = "x", headers: dict[str, str] | None = None, service: str = "svc-1"
) -> requests.Response:
    headers = AUTHORIZED if headers is None else headers
    return requests.post(f"{front.url}/scoring/{service}/score", data=body, headers=headers, timeout=20)


def code(response: requests.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def test_a_request_with_a_key_is_scored(front: GatewayServer, program: Program) -> None:
    for key in (KEY, OTHER):
        assert score(front, "hello", {"Authorization": f"Bearer {key}"}).json() == "hello"
    assert requests.get(f"{front.url}/scoring/svc-1/", headers=AUTHORIZED).json()["status"] == "healthy"
    document = requests.get(f"{front.url}/scoring/svc-1/swagger.json", headers=AUTHORIZED).json()
    assert document["basePath"] == "/scoring/svc-1"


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x", KEY])
def test_requests_without_a_valid_key_are_rejected(
    front: GatewayServer, program: Program, authorization: str | None
) -> None:
    for path in ("score", "swagger.json", ""):
        method = "POST" if path == "score" else "GET"
        headers = {"Authorization": authorization} if authorization is not None else {}
        answer = requests.request(method, f"{front.url}/scoring/svc-1/{path}?key={KEY}", headers=headers)
        assert code(answer) == (401, "Unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"


def test_an_empty_key_is_rejected_even_if_a_route_has_no_keys(front: GatewayServer, directory: Path) -> None:
    routes.write(directory, route("unix:/nowhere", key_digests=[]))
    assert code(score(front, headers={"Authorization": "Bearer "}))[0] == 401


@pytest.mark.parametrize("service", ["none", "..%2f..%2fetc", "svc-1%00", "x" * 100, ""])
def test_unknown_services_are_404(front: GatewayServer, program: Program, service: str) -> None:
    assert code(score(front, service=service)) == (404, "NotFound")


def test_other_paths_and_methods_are_rejected(front: GatewayServer, program: Program) -> None:
    assert code(requests.get(f"{front.url}/scoring/svc-1/admin", headers=AUTHORIZED)) == (404, "NotFound")
    answer = requests.get(f"{front.url}/scoring/svc-1/score", headers=AUTHORIZED)
    assert (*code(answer), answer.headers["allow"]) == (405, "MethodNotAllowed", "POST")


def test_a_body_above_the_limit_is_413_whether_announced_or_not(front: GatewayServer, program: Program) -> None:
    assert score(front, "x" * 1000).status_code == 200
    assert code(score(front, "x" * 1001)) == (413, "BodyTooLarge")
    answer = requests.post(f"{front.url}/scoring/svc-1/score", data=iter([b"x" * 600] * 2), headers=AUTHORIZED)
    assert code(answer) == (413, "BodyTooLarge")


def test_a_wrong_key_is_rejected_before_the_body_is_read(front: GatewayServer, program: Program) -> None:
    with socket.create_connection(("127.0.0.1", front.port)) as connection:
        connection.settimeout(5)
        connection.sendall(b"POST /scoring/svc-1/score HTTP/1.1\r\nhost: x\r\ncontent-length: 900\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 401 ")


def test_responses_are_sandboxed_json_without_cookies_and_foreign_headers(
    front: GatewayServer, directory: Path, tmp_path: Path
) -> None:
    seen: list[bytes] = []

    def script(connection: socket.socket, _: int) -> None:
        seen.append(read_request(connection))
        connection.sendall(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nset-cookie: a=b\r\nx-evil: 1\r\nkeep-alive: timeout=5\r\n"
            b"access-control-allow-origin: *\r\ntransfer-encoding: chunked\r\n\r\n8\r\n<script>\r\n0\r\n\r\n"
        )

    routes.write(directory, route(Peer(tmp_path / "p", script).address))
    sent = {**AUTHORIZED, "Cookie": "sessionid=secret", "X-Forwarded-For": "1.2.3.4", "traceparent": "00-ab-cd-01"}
    answer = score(front, headers=sent)
    assert answer.content == b"<script>"
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("sandbox;")
    assert not {"set-cookie", "x-evil", "keep-alive", "transfer-encoding", "access-control-allow-origin"} & {
        name.lower() for name in answer.headers
    }
    assert b"traceparent: 00-ab-cd-01" in seen[0]
    assert b"secret" not in seen[0]
    assert KEY.encode() not in seen[0]
    assert b"1.2.3.4" not in seen[0]


def test_errors_of_the_driver_are_forwarded(front: GatewayServer, program: Program) -> None:
    answer = score(front, "fail")
    assert code(answer) == (500, "DriverFailed")
    assert answer.json()["error"]["message"] == "ValueError: bad petal"


def test_a_stopped_service_is_503_with_retry_after(front: GatewayServer, directory: Path, tmp_path: Path) -> None:
    routes.write(directory, route(f"unix:{tmp_path}/nobody.sock"))
    answer = score(front)
    assert code(answer) == (503, "ServiceUnavailable")
    assert answer.headers["retry-after"] == "1"


def test_a_service_that_does_not_answer_in_time_is_504(front: GatewayServer, directory: Path, program: Program) -> None:
    routes.write(directory, route(f"unix:{program.address}", timeout=0.3))
    assert code(score(front, "sleep 1")) == (504, "TimedOut")


def test_a_service_that_dies_during_a_request_is_502_without_a_retry(
    front: GatewayServer, directory: Path, tmp_path: Path
) -> None:
    requests_seen: list[bytes] = []

    def script(connection: socket.socket, number: int) -> None:
        while request := read_request(connection):
            requests_seen.append(request)
            if len(requests_seen) == 2:
                return  # a reused connection: the request was read, then the process died
            connection.sendall(OK)

    routes.write(directory, route(Peer(tmp_path / "p", script).address))
    assert score(front).status_code == 200
    assert code(score(front)) == (502, "BadAnswer")
    assert len(requests_seen) == 2
    assert score(front).status_code == 200


def test_an_invalid_response_is_502(front: GatewayServer, directory: Path, tmp_path: Path) -> None:
    def script(connection: socket.socket, number: int) -> None:
        read_request(connection)
        connection.sendall(b"nonsense\r\n\r\n")

    routes.write(directory, route(Peer(tmp_path / "p", script).address))
    assert code(score(front)) == (502, "BadAnswer")


def test_a_closed_pooled_connection_fails_no_request(front: GatewayServer, directory: Path, tmp_path: Path) -> None:
    def script(connection: socket.socket, number: int) -> None:
        read_request(connection)
        connection.sendall(OK)  # then closes without announcing it

    peer = Peer(tmp_path / "p", script)
    routes.write(directory, route(peer.address))
    for _ in range(20):
        assert score(front).json() == "ok"
    assert peer.connections == 20


def test_connections_to_the_service_are_reused(front: GatewayServer, directory: Path, tmp_path: Path) -> None:
    def script(connection: socket.socket, number: int) -> None:
        while read_request(connection):
            connection.sendall(OK)

    peer = Peer(tmp_path / "p", script)
    routes.write(directory, route(peer.address))
    for _ in range(20):
        assert score(front).status_code == 200
    assert peer.connections == 1


def test_services_can_use_tcp(front: GatewayServer, directory: Path) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        body = json.dumps([scope["path"], (await receive())["body"].decode()]).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    with Server(application) as service:
        routes.write(directory, route(service.url))
        assert score(front, "hello").json() == ["/score", "hello"]


def test_a_moved_service_is_found_immediately_and_a_removed_one_expires(
    front: GatewayServer, directory: Path, tmp_path: Path, program: Program
) -> None:
    assert score(front).status_code == 200
    routes.write(directory, route(f"unix:{tmp_path}/old.sock"))
    time.sleep(route_cache.ROUTE_CACHE_SECONDS + 0.1)
    score(front)
    routes.write(directory, route(f"unix:{program.address}", revision=2))
    assert score(front).status_code == 200  # the cached address refuses connections, so the route is read again
    routes.remove(directory, "svc-1")
    time.sleep(route_cache.ROUTE_CACHE_SECONDS + 0.1)
    assert code(score(front)) == (404, "NotFound")


def test_new_keys_are_valid_within_a_second(front: GatewayServer, directory: Path, program: Program) -> None:
    assert score(front).status_code == 200
    new = route(f"unix:{program.address}", key_digests=[sha256(b"new").hexdigest()])
    routes.write(directory, new)
    time.sleep(route_cache.ROUTE_CACHE_SECONDS + 0.1)
    assert score(front).status_code == 401
    assert score(front, headers={"Authorization": "Bearer new"}).status_code == 200


def test_unreadable_routes_are_replaced_by_the_last_known_ones(
    front: GatewayServer, directory: Path, program: Program
) -> None:
    assert score(front).status_code == 200
    (directory / "svc-1.json").write_text("{ damaged")
    time.sleep(route_cache.ROUTE_CACHE_SECONDS + 0.1)
    assert score(front).status_code == 200
    directory.rename(directory.with_name("away"))
    time.sleep(route_cache.ROUTE_CACHE_SECONDS + 0.1)
    assert score(front).status_code == 200


def test_a_route_that_was_never_read_and_is_damaged_is_503(
    front: GatewayServer, directory: Path, program: Program
) -> None:
    (directory / "svc-2.json").write_text("{ damaged")
    assert code(score(front, service="svc-2")) == (503, "NoRoute")


@pytest.mark.slow
def test_a_switch_of_revisions_under_load_fails_no_request(
    front: GatewayServer, directory: Path, tmp_path: Path, program: Program
) -> None:
    (tmp_path / "new").mkdir()
    stop = threading.Event()
    failures: list[Any] = []
    answered = [0]

    def load() -> None:
        with requests.Session() as session:
            while not stop.is_set():
                answer = session.post(f"{front.url}/scoring/svc-1/score", data="x", headers=AUTHORIZED, timeout=20)
                answered[0] += 1
                if answer.status_code != 200:
                    failures.append((answer.status_code, answer.text))

    with Program(tmp_path / "new", DRIVER) as newer, ThreadPoolExecutor(8) as pool:
        newer.wait_until_ready()
        clients = [pool.submit(load) for _ in range(8)]
        time.sleep(0.5)
        routes.write(directory, route(f"unix:{newer.address}", revision=2))
        time.sleep(route_cache.ROUTE_CACHE_SECONDS + 0.3)
        assert program.stop() == 0
        time.sleep(0.5)
        stop.set()
        for client in clients:
            client.result()
    assert answered[0] > 100
    assert failures == []


def test_metrics_count_requests_errors_and_time_by_service(front: GatewayServer, program: Program) -> None:
    for body in ("x", "fail", "x"):
        score(front, body)
    score(front, headers={})
    score(front, service="none")
    text = requests.get(f"{front.url}/scoring/metrics").text
    for line in (
        'mms_gateway_requests_total{service="svc-1",code="200"} 2',
        'mms_gateway_requests_total{service="svc-1",code="500"} 1',
        'mms_gateway_requests_total{service="",code="404"} 1',
        'mms_gateway_errors_total{service="svc-1",class="client"} 1',
        'mms_gateway_errors_total{service="svc-1",class="server"} 1',
        'mms_gateway_request_seconds_bucket{service="svc-1",le="+Inf"} 4',
        'mms_gateway_request_seconds_count{service="svc-1"} 4',
    ):
        assert line in text.splitlines(), text


def test_metrics_drop_a_deleted_service(front: GatewayServer, directory: Path, program: Program) -> None:
    score(front)
    routes.remove(directory, "svc-1")
    time.sleep(route_cache.ROUTE_CACHE_SECONDS + 0.1)
    score(front)
    text = requests.get(f"{front.url}/scoring/metrics").text
    assert "svc-1" not in text
    assert 'mms_gateway_requests_total{service="",code="404"} 1' in text


def test_metrics_require_this_machine_or_the_token(directory: Path) -> None:
    # As behind a proxy: a forwarded client isn't local, whatever the address of the socket.
    with GatewayServer(directory, metrics_token="secret") as front:
        url = f"{front.url}/scoring/metrics"
        assert requests.get(url).status_code == 200
        for header in ("X-Forwarded-For", "Forwarded", "X-Real-IP"):
            assert requests.get(url, headers={header: "for=127.0.0.1"}).status_code == 403
        forwarded = {"X-Forwarded-For": "1.2.3.4", "Authorization": "Bearer secret"}
        assert requests.get(url, headers=forwarded).status_code == 200
        assert requests.get(url, headers={**forwarded, "Authorization": "Bearer wrong"}).status_code == 403


def test_a_client_that_disconnects_while_sending_is_not_an_error(
    front: GatewayServer, program: Program, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection(("127.0.0.1", front.port)) as connection:
        head = f"POST /scoring/svc-1/score HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
        connection.sendall(head.encode() + b"content-length: 10\r\n\r\nhalf")
        time.sleep(0.2)
    time.sleep(0.2)
    assert score(front).status_code == 200
    assert not caplog.records


def test_a_request_is_canceled_when_its_client_disconnects(
    front: GatewayServer, directory: Path, tmp_path: Path
) -> None:
    left = threading.Event()

    def script(connection: socket.socket, number: int) -> None:
        read_request(connection)
        if number == 2:
            connection.sendall(OK)
            return
        connection.settimeout(10)
        if connection.recv(1) == b"":
            left.set()

    routes.write(directory, route(Peer(tmp_path / "p", script).address, timeout=20))
    with socket.create_connection(("127.0.0.1", front.port)) as connection:
        head = f"POST /scoring/svc-1/score HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
        connection.sendall(head.encode() + b"content-length: 0\r\n\r\n")
        time.sleep(0.2)
    assert left.wait(3)
    assert score(front).json() == "ok"


def test_a_slow_response_is_delivered(front: GatewayServer, program: Program) -> None:
    assert score(front, "sleep 1.2").status_code == 200


def test_large_bodies_and_responses_are_complete(front: GatewayServer, directory: Path, program: Program) -> None:
    routes.write(directory, route(f"unix:{program.address}", body_max_bytes=16 * 1024**2))
    body = "äöü€" * 500_000
    answer = requests.post(f"{front.url}/scoring/svc-1/score", data=body.encode(), headers=AUTHORIZED, timeout=20)
    assert answer.json() == body


def test_an_endless_response_is_stopped(
    front: GatewayServer, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "MAX_RESPONSE_BYTES", 100_000)

    def script(connection: socket.socket, number: int) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        try:
            while True:
                connection.sendall(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        except OSError:
            return

    routes.write(directory, route(Peer(tmp_path / "p", script).address))
    answer = score(front)
    assert code(answer) == (502, "AnswerTooLarge")
    assert answer.json()["error"]["message"].startswith(
        "The response is larger than 100000 bytes, the limit for services."
    )


def test_the_gateway_runs_as_a_program_without_django(directory: Path, program: Program) -> None:
    port = free_port()
    environment = {**os.environ, "GATEWAY_PORT": str(port), "MMS_ROUTES": str(directory)}
    process = subprocess.Popen([sys.executable, "-m", "mms.gateway"], env=environment, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, 20, "the gateway")
        answer = requests.post(f"http://127.0.0.1:{port}/scoring/svc-1/score", data="alone", headers=AUTHORIZED)
        assert answer.json() == "alone"
        loaded = subprocess.check_output(
            [sys.executable, "-c", "import sys, mms.gateway; print(*sys.modules)"], text=True
        ).split()
        assert "mms.gateway" in loaded
        assert "django" not in loaded
    finally:
        process.terminate()
        assert process.wait(10) in (0, -15)


def test_routes_are_private_files_replaced_atomically(directory: Path) -> None:
    routes.write(directory, route("unix:/a"))
    routes.write(directory, route("unix:/b", revision=2))
    assert [path.name for path in directory.iterdir()] == ["svc-1.json"]
    assert (directory / "svc-1.json").stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700
    found = routes.read(directory, "svc-1")
    assert found == route("unix:/b", revision=2)
    assert KEY not in (directory / "svc-1.json").read_text()
    routes.remove(directory, "svc-1")
    routes.remove(directory, "svc-1")
    assert routes.read(directory, "svc-1") is None
    with pytest.raises(ValueError, match="not a service id"):
        routes.read(directory, "../svc-1")
