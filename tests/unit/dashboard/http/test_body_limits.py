"""Request bodies are limited in size and duration before Django reads them, and passed on unchanged."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from django.conf import settings

from dashboard.http import body
from dashboard.http.body_limits import BodyLimit
from tests.asgi_server import Server
from tests.integration.dashboard.test_uploads import drip


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
