"""The scoring program as an image runs it: in a separate process, without this project on its path."""

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
    """Process `python -P -m scoring` with the driver `source`, on a Unix socket."""

    def __init__(self, directory: Path, source: str, schema: dict[str, Any] | None = None, **settings: Any) -> None:
        """Prepare the program. `settings` are the MMS_… variables, in lower case without the prefix."""
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
        """Return an open connection. Wait until the program listens."""
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
        raise AssertionError(f"not listening: {self.log}")

    def request(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, Any, HTTPResponse]:
        """Send one request on a new connection. Return the status, the JSON and the response."""
        connection = HTTPConnection("scoring")
        connection.sock = self.connect()
        try:
            with suppress(BrokenPipeError):  # the server may refuse the request by its headers, before the body is sent
                connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None, answer
        finally:
            connection.close()

    def score(self, body: Any) -> tuple[int, Any]:
        """Return status and JSON of one POST /score. The body is sent as JSON unless it is bytes."""
        return self.request("POST", "/score", body if isinstance(body, bytes) else json.dumps(body).encode())[:2]

    def wait_until_ready(self) -> "Program":
        for _ in range(300):
            if self.request("GET", "/")[0] == 200:
                return self
            time.sleep(0.02)
        raise AssertionError(f"never ready: {self.log}")

    def stop(self) -> int:
        """Send SIGTERM. Return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


def exchange(connection: socket.socket, data: bytes) -> bytes:
    """Send raw bytes and read until the other side closes."""
    if data:  # sending fails, even with no data, if the server has already answered and closed the connection
        connection.sendall(data)
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)
