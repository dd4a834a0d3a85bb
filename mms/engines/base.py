"""The interface that all engines implement. Engines know nothing of rows, queues and states; `mms.services` does.

An engine runs *revisions* of services: one image each, identified by (service ID, number).
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class Health(StrEnum):
    """Health of a revision, as observed by its engine."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"  # the process runs, but its health check fails or times out
    CRASHED = "crashed"  # the process ended and waits to be restarted
    ABSENT = "absent"  # the engine does not run this revision


class EngineRefusedError(Exception):
    """The engine can't run this here. The message has the reason; nothing was started."""


class EngineUnavailableError(Exception):
    """The engine itself can't be reached. Running revisions may be unaffected; retry later."""


@dataclass(frozen=True)
class Limits:
    """Settings of the scoring program of a revision."""

    processes: int = 1
    init_timeout: float = 120.0  # seconds
    run_timeout: float = 60.0  # seconds
    body_max_bytes: int = 16 * 1024**2
    queue_length: int = 100


@dataclass(frozen=True)
class Revision:
    """A revision to run: an image of the local OCI store, as revision `number` of service `service_id`."""

    service_id: str
    number: int
    image_digest: str  # "sha256:..." of the manifest in the store
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Observation:
    """The state of a revision, as an engine observed it."""

    health: Health
    detail: str = ""  # sentences for users: exit code, reason, number of restarts
    restarts: int = 0
    in_flight: int | None = None  # open requests; None if unknown
    is_unrecoverable: bool = False  # True if init() failed, so that each restart will fail as well
    is_out_of_memory: bool = False  # True if it exceeded a limit; `detail` says which


class Engine(Protocol):
    """An engine. All methods may raise EngineUnavailableError, and EngineRefusedError for an invalid ID or number."""

    def check(self, image_digest: str) -> None:
        """Check that the image can run here: Python version, platform, memory. Starts nothing.

        Raises EngineRefusedError with the reason if it can't.
        """

    def apply(self, revision: Revision) -> str:
        """Start the revision, unless it is running, and return its address without waiting until it is healthy.

        The address is `unix:/path` or `http://host:port`, for the gateway. Raises EngineRefusedError if the revision
        can't run here; nothing was started then.
        """

    def remove(self, service_id: str, number: int) -> None:
        """Stop the revision and delete everything but its logs. Does nothing if there is no such revision."""

    def observe(self, service_id: str, number: int) -> Observation:
        """Return the current health of the revision, including the result of an HTTP request to it."""

    def logs(self, service_id: str, number: int, after: int = 0, limit: int = 65536) -> tuple[str, int]:
        """Return at most `limit` bytes of the log from byte `after`, and the position for the next call."""
