"""Workers and the scheduler start once the web server responds, or after a time limit."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_django import Settings

from dashboard.ops.startup import after_web
from dashboard.ops.supervisor import programs
from tests.asgi_server import Server
from tests.ports import free_port

seen: list[Any] = []


async def refusing(scope: Any, receive: Any, send: Any) -> None:
    """Respond as Django does to an unknown host."""
    seen.append((scope["path"], dict(scope["headers"])[b"host"]))
    await send({"type": "http.response.start", "status": 400, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


@pytest.fixture
def web() -> Iterator[Server]:
    seen.clear()
    with Server(refusing) as server:
        yield server


def test_any_response_counts(web: Server) -> None:
    assert after_web.wait("127.0.0.1", web.port, "models.example", 30)
    assert seen == [("/sign-in/", b"models.example")]


def test_an_open_port_alone_does_not() -> None:
    """The web server listens before it can answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        began = time.monotonic()
        assert not after_web.wait("127.0.0.1", server.getsockname()[1], "x", 0.2)
        assert time.monotonic() - began >= 0.2


def test_the_program_replaces_the_waiting_process(web: Server) -> None:
    command = [sys.executable, "-c", "import os; print(os.getpid())"]
    arguments = ["127.0.0.1", str(web.port), "x", "--", *command]
    process = subprocess.Popen(
        [sys.executable, "-I", programs.AFTER_WEB, *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.communicate(timeout=30)[0] == f"{process.pid}\n"


def test_it_waits_for_the_server_to_start() -> None:
    port, answers = free_port(), []
    waiting = threading.Thread(target=lambda: answers.append(after_web.wait("127.0.0.1", port, "x", 30)))
    waiting.start()
    with socket.create_server(("127.0.0.1", port)) as server:
        connection, _ = server.accept()
        assert not answers
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            waiting.join(30)
    assert answers == [True]


def test_workers_and_the_scheduler_wait_under_the_supervisor_only(settings: Settings) -> None:
    settings.PORT, settings.ALLOWED_HOSTS = 8100, ["models.example"]
    sections = programs.sections(logs_to_terminal=False)
    waiting = {name for name, section in sections.items() if "after_web.py" in section.get("command", "")}
    assert waiting == {"program:worker", "program:mms-worker", "program:beat"}
    assert "after_web.py 127.0.0.1 8100 models.example -- " in sections["program:worker"]["command"]
    assert not [program for program in programs.programs() if "after_web" in " ".join(program.command)]
