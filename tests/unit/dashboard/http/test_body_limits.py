"""What is sent to pages: bounded in length and time before Django has it, and passed on as it was."""

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
    """Answers with what it was sent; counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked += 1
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
def test_a_form_is_passed_on_as_it_was_sent(server: Server, length: int) -> None:
    sent = b"x" * length
    assert requests.post(server.url, data=sent).content == sent
    assert requests.post(server.url, data=iter([sent[: length // 2], sent[length // 2 :]])).content == sent


def test_a_longer_one_is_refused_whether_announced_or_not_and_not_kept(server: Server, echo: Echo) -> None:
    sent = b"x" * (settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1)
    for data in (sent, iter([sent[:1000], sent[1000:]])):
        answer = requests.post(server.url, data=data)
        assert answer.status_code == 413
        assert "This request is too large" in answer.text
    assert echo.asked == 0


def test_one_that_comes_drop_by_drop_or_not_to_its_end_never_reaches_a_page(
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
    assert echo.asked == 1
