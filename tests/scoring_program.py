"""Runs the scoring program as an image does: a process of its own, without this project on its path."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import mms.scoring

SCORING = Path(mms.scoring.__file__).parent


class Program:
    """One `python -P -m scoring` with the driver `source`, on a unix socket."""

    def __init__(self, directory: Path, source: str, schema: dict[str, Any] | None = None, **settings: Any) -> None:
        """`settings`: MMS_… variables without the prefix, in lower case."""
        self.address = directory / "s.sock"
        self._log = (directory / "log").open("w+b")
        app, runtime = directory / "app", directory / "runtime"
        app.mkdir()
        runtime.mkdir()
        (runtime / "scoring").symlink_to(SCORING)
        (app / "score.py").write_text(source)
        if schema is not None:
            (app / "schema.json").write_text(json.dumps(schema))
        described = {"driver": "score.py", "schema": "schema.json" if schema is not None else None}
        (directory / "app.json").write_text(json.dumps(described | {"models": [], "runtime_type": "Python"}))
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(runtime),
            "MMS_APP": str(directory / "app.json"),
            "MMS_LISTEN": f"unix:{self.address}",
            **{f"MMS_{name.upper()}": str(value) for name, value in settings.items()},
        }
        command = [sys.executable, "-P", "-m", "scoring"]
        self.process = subprocess.Popen(command, cwd=app, env=environment, stdout=self._log, stderr=self._log)

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._log.close()

    @property
    def log(self) -> str:
        self._log.flush()
        return Path(self._log.name).read_text()

    def connect(self) -> socket.socket:
        """An open connection; waits until the program listens."""
        for _ in range(200):
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(20)
            try:
                connection.connect(str(self.address))
                return connection
            except (FileNotFoundError, ConnectionRefusedError):
                connection.close()
                assert self.process.poll() is None, self.log
                time.sleep(0.02)
        raise AssertionError(f"does not listen: {self.log}")

    def request(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, Any, HTTPResponse]:
        """Status, JSON and answer of one request on a connection of its own."""
        connection = HTTPConnection("scoring")
        connection.sock = self.connect()
        try:
            with suppress(BrokenPipeError):  # refused by its head: the answer is there before the body was sent
                connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None, answer
        finally:
            connection.close()

    def score(self, body: Any) -> tuple[int, Any]:
        """Status and JSON of one POST /score; `body` is sent as JSON unless it is bytes."""
        return self.request("POST", "/score", body if isinstance(body, bytes) else json.dumps(body).encode())[:2]

    def wait_until_ready(self) -> "Program":
        for _ in range(300):
            if self.request("GET", "/")[0] == 200:
                return self
            time.sleep(0.02)
        raise AssertionError(f"never ready: {self.log}")

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


def exchange(connection: socket.socket, data: bytes) -> bytes:
    """Send raw bytes and read until the other side closes."""
    if data:  # to one who has answered and closed already, not even nothing can be sent
        connection.sendall(data)
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)
