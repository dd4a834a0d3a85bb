"""Settings of the scoring program, from the environment of its process."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class Misconfigured(Exception):
    """The process cannot start. The text names what is wrong."""


@dataclass(frozen=True)
class App:
    """What the image holds, as its app.json says. Paths are relative to the working directory."""

    driver: str
    schema: str | None
    runtime_type: str
    models: list[dict[str, Any]]

    @classmethod
    def read(cls, path: Path) -> "App":
        try:
            found = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise Misconfigured(f"{path} cannot be read: {error}") from None
        if not found.get("driver"):
            raise Misconfigured("The manifest names no driver program, so there is nothing to call.")
        return cls(found["driver"], found.get("schema"), found.get("runtime_type", ""), found.get("models", []))


@dataclass(frozen=True)
class Settings:
    """How this process listens and what it allows."""

    app: Path
    listen: str  # unix:/path, tcp:host:port or fd:3 (a socket that the parent process opened)
    processes: int = 1
    init_timeout: float = 120.0  # seconds
    run_timeout: float = 60.0  # seconds
    body_max_bytes: int = 16 * 1024**2
    queue_length: int = 100  # requests waiting for run(); more are answered 503
    shared: bool = False  # other processes accept requests on the same socket
    late: bool = False  # join the shared socket only once init() has returned

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Read the MMS_… variables; raises Misconfigured naming a wrong one."""

        def number(name: str, default: float) -> float:
            text = environment.get(name, str(default))
            try:
                value = float(text)
            except ValueError:
                value = 0.0
            if not value > 0:
                raise Misconfigured(f"{name} must be a number above 0, not {text!r}.")
            return value

        return cls(
            app=Path(environment.get("MMS_APP", "/opt/mms/app.json")),
            listen=environment.get("MMS_LISTEN", "tcp:0.0.0.0:8080"),
            processes=int(number("MMS_PROCESSES", 1)),
            init_timeout=number("MMS_INIT_TIMEOUT", 120),
            run_timeout=number("MMS_RUN_TIMEOUT", 60),
            body_max_bytes=int(number("MMS_BODY_MAX_BYTES", 16 * 1024**2)),
            queue_length=int(number("MMS_QUEUE_LENGTH", 100)),
            shared=environment.get("MMS_SHARED") == "1",
            late=environment.get("MMS_LATE") == "1",
        )
