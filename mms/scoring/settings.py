"""Settings of the scoring program, from the environment of its process."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Exit statuses of the process. Engines don't restart a service after the first, because it would fail again.
INIT_FAILED = 3
STUCK = 70


class SetupError(Exception):
    """The process can't start. The message has the reason."""


@dataclass(frozen=True)
class App:
    """The content of the image, from its app.json. Paths are relative to the working directory."""

    driver: str
    schema: str | None
    runtime_type: str
    models: list[dict[str, Any]]

    @classmethod
    def read(cls, path: Path) -> "App":
        """Read app.json. Raises SetupError."""
        try:
            found = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise SetupError(f"{path} can't be read: {error}") from None
        if not found.get("driver"):
            raise SetupError("The manifest has no driver script, so there is nothing to run.")
        return cls(found["driver"], found.get("schema"), found.get("runtime_type", ""), found.get("models", []))


@dataclass(frozen=True)
class Settings:
    """Address and limits of this process."""

    app: Path
    listen: str  # unix:/path, tcp:host:port or fd:3 (a socket that the parent process opened)
    processes: int = 1
    init_timeout: float = 120.0  # seconds
    run_timeout: float = 60.0  # seconds
    body_max_bytes: int = 16 * 1024**2
    answer_max_bytes: int = 64 * 1024**2  # the gateway's own limit
    queue_length: int = 100  # requests waiting for run(); more are answered 503
    late: bool = False  # join the shared socket only once init() has returned
    siblings: tuple[int, int] | None = None  # pipes of `processes.py`: this one is ready, all are ready

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Read the MMS_… variables. Raises SetupError for an invalid one."""

        def number(name: str, default: float) -> float:
            text = environment.get(name, str(default))
            try:
                value = float(text)
            except ValueError:
                value = 0.0
            if not 0 < value < float("inf"):
                raise SetupError(f"{name} must be a number above 0, not {text!r}.")
            return value

        siblings = environment.get("MMS_SIBLINGS", "").split(",")
        return cls(
            app=Path(environment.get("MMS_APP", "/opt/mms/app.json")),
            listen=environment.get("MMS_LISTEN", "tcp:0.0.0.0:8080"),
            processes=int(number("MMS_PROCESSES", 1)),
            init_timeout=number("MMS_INIT_TIMEOUT", 120),
            run_timeout=number("MMS_RUN_TIMEOUT", 60),
            body_max_bytes=int(number("MMS_BODY_MAX_BYTES", 16 * 1024**2)),
            answer_max_bytes=int(number("MMS_ANSWER_MAX_BYTES", 64 * 1024**2)),
            queue_length=int(number("MMS_QUEUE_LENGTH", 100)),
            late=environment.get("MMS_LATE") == "1",
            siblings=(int(siblings[0]), int(siblings[1])) if len(siblings) == 2 else None,
        )
