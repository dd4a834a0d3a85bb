"""Request bodies are limited in size and duration before Django reads them, and passed on unchanged."""

import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, cast

import pytest
import requests
from django.conf import settings

from dashboard.http import body
from dashboard.http.body_limits import BodyBudget, BodyLimit, address_group
from tests.asgi_server import Server
from tests.integration.dashboard.test_uploads import drip
from tests.site import wait_until


class Echo:
    """Returns the body and counts the requests."""

    def __init__(self) -> None:
        self.requests = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.requests += 1
        content = (await receive())["body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": content})


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def server(echo: Echo) -> Iterator[Server]:
    with Server(BodyLimit(echo)) as server:
        yield server


@pytest.mark.parametrize("length", [0, 1, 100_000, settings.DATA_UPLOAD_MAX_MEMORY_SIZE])
def test_a_body_is_passed_on_unchanged(server: Server, length: int) -> None:
    sent = b"x" * length
    assert requests.post(server.url, data=sent).content == sent
    assert requests.post(server.url, data=iter([sent[: length // 2], sent[length // 2 :]])).content == sent


def test_a_large_body_is_rejected_with_or_without_content_length(server: Server, echo: Echo) -> None:
    sent = b"x" * (settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1)
    for data in (sent, iter([sent[:1000], sent[1000:]])):
        answer = requests.post(server.url, data=data)
        assert answer.status_code == 413
        assert "This request is too large" in answer.text
    assert echo.requests == 0


def test_a_slow_or_incomplete_body_is_not_passed_on(
    server: Server, echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "PAUSE_SECONDS", 1.0)
    head = f"POST / HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: 1000\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.settimeout(0.2)
        connection.sendall(head)
        assert drip(connection, 5) == b"HTTP/1.1 408 Request Timeout"
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head + b"half")
    assert requests.post(server.url, data=b"whole").content == b"whole"
    assert echo.requests == 1


# --- all bodies together --------------------------------------------------------------------------------------------

KB = 1024


def open_body(server: Server, sent: int, declared: int = 4 * 1024**2, path: str = "/", **headers: str) -> socket.socket:
    """Send the beginning of a request, and `sent` bytes of its body."""
    connection = socket.create_connection(("127.0.0.1", server.port))
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\n{lines}Content-Length: {declared}\r\n\r\n".encode())
    connection.sendall(b"x" * sent)
    return connection


@pytest.fixture
def budget() -> BodyBudget:
    return BodyBudget(total=1000 * KB, per_address=400 * KB)


@pytest.fixture
def limited(echo: Echo, budget: BodyBudget) -> Iterator[Server]:
    application = budget.holding(settings.DATA_UPLOAD_MAX_MEMORY_SIZE, BodyLimit(echo))
    with Server(application, proxy_headers=True, forwarded_allow_ips="127.0.0.1") as server:
        yield server


def test_unfinished_bodies_of_one_address_are_limited(limited: Server, budget: BodyBudget, echo: Echo) -> None:
    with ExitStack() as connections:
        started = [connections.enter_context(open_body(limited, 100 * KB)) for _ in range(20)]
        wait_until(lambda: len(select.select(started, [], [], 0)[0]) == 16, 30, "the refusal of 16 of 20")
        assert {connection.recv(12) for connection in select.select(started, [], [], 0)[0]} == {b"HTTP/1.1 429"}
        assert budget.held.total() <= 400 * KB
        assert requests.post(limited.url, data=b"small").content == b"small"
        other = requests.post(limited.url, data=b"x" * 200 * KB, headers={"X-Forwarded-For": "203.0.113.9"})
        assert other.status_code == 200
    wait_until(lambda: not budget.held, 30, f"the bytes of closed connections: {budget.held}")
    assert requests.post(limited.url, data=b"x" * 200 * KB).status_code == 200


def test_unfinished_bodies_of_many_addresses_are_limited(limited: Server, budget: BodyBudget) -> None:
    with ExitStack() as connections:
        for number in range(4):
            address = f"203.0.113.{number}"
            connections.enter_context(open_body(limited, 240 * KB, X_Forwarded_For=address))
        wait_until(lambda: budget.held.total() > 850 * KB, 30, f"the bodies: {budget.held}")
        answer = requests.post(limited.url, data=b"x" * 300 * KB, headers={"X-Forwarded-For": "203.0.113.9"})
        assert answer.status_code == 503
        assert "too many large requests" in answer.text
        assert answer.headers["retry-after"] == "60"
        assert requests.post(limited.url, data=b"small").content == b"small"


@pytest.mark.parametrize("path", ["/v1/accounts/", "/api/x", "/uploads/"])
def test_the_error_has_the_format_of_the_interface(limited: Server, path: str) -> None:
    answer = requests.post(f"{limited.url}{path}", data=b"x" * 600 * KB)
    assert answer.status_code == 429
    assert answer.json()["error"]["code"] == "TooManyRequests"
    assert "Try again" in answer.json()["error"]["message"]


def test_a_long_body_that_is_stored_in_blocks_counts_as_one_block(budget: BodyBudget) -> None:
    async def count(scope: Any, receive: Any, send: Any) -> None:
        size = 0
        while True:
            message = await receive()
            size += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(size).encode()})

    with Server(budget.holding(100 * KB, count)) as server:
        assert requests.post(server.url, data=b"x" * 3000 * KB).text == str(3000 * KB)
    assert not budget.held


@pytest.mark.parametrize(
    ("client", "group"),
    [
        (("192.0.2.1", 1), "192.0.2.1"),
        (("2001:db8:1:2:3:4:5:6", 1), "2001:db8:1:2::/64"),
        (("::ffff:192.0.2.1", 1), "192.0.2.1"),
        (None, ""),
    ],
)
def test_addresses_of_one_client_are_grouped(client: Any, group: str) -> None:
    assert address_group(cast(Any, {"client": client})) == group
