"""The interface every engine has. An engine knows nothing of rows, queues and states; `mms.services` does.

An engine runs *revisions* of services: one image each, addressed by (service id, number).
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class Health(StrEnum):
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"  # the process runs, and its health answer is bad or missing
    CRASHED = "crashed"  # the process is gone and waits for its next start
    ABSENT = "absent"  # the engine does not run this revision


class EngineRefusedError(Exception):
    """The engine cannot run this here. The text says what is missing; nothing was started."""


class EngineUnavailableError(Exception):
    """The engine itself cannot be asked at the moment. What runs may well go on running; trying again is right."""


@dataclass(frozen=True)
class Limits:
    """Settings of the scoring program of one revision."""

    processes: int = 1
    init_timeout: float = 120.0  # seconds
    run_timeout: float = 60.0  # seconds
    body_max_bytes: int = 16 * 1024**2
    queue_length: int = 100


@dataclass(frozen=True)
class Revision:
    """What to run: an image of the local OCI store, as revision `number` of service `service_id`."""

    service_id: str
    number: int
    image_digest: str  # "sha256:…" of the manifest in the store
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Observation:
    health: Health
    detail: str = ""  # one sentence for people: exit code, reason, how often restarted
    restarts: int = 0
    in_flight: int | None = None  # requests being answered now; None where nobody says
    is_unrecoverable: bool = False  # its own init() failed: the next start will end the same way


class Engine(Protocol):
    def check(self, image_digest: str) -> None:
        """Raise EngineRefusedError where this image cannot run here (other Python minor version, platform, memory…)."""

    def apply(self, revision: Revision) -> str:
        """Start the revision, or leave it alone if it runs already. Returns the address for the gateway
        (`unix:/path` or `http://host:port`). Raises EngineRefusedError."""

    def remove(self, service_id: str, number: int) -> None:
        """Stop the revision and free everything but its logs. Removing what is not there is no error."""

    def observe(self, service_id: str, number: int) -> Observation:
        """What is known of the revision now; asks the scoring program over HTTP."""

    def logs(self, service_id: str, number: int, after: int = 0, limit: int = 65536) -> tuple[str, int]:
        """Log text from byte position `after`, at most `limit` bytes, and the position to ask from next."""
