"""Routes: the address of each service, in one small file per service.

A rollout writes them; every gateway process reads them. A rename replaces a file, so a reader sees either the old
route or the new one. Files contain only SHA-256 digests of keys, never the keys.
"""

import json
import os
import re
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

SERVICE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")


@dataclass(frozen=True)
class Route:
    """The destination of requests for one service. `address` is unix:/path or http://host:port."""

    service_id: str
    name: str
    revision: int
    address: str
    key_digests: list[str] = field(default_factory=list)  # hex SHA-256 of each valid key
    body_max_bytes: int = 16 * 1024**2
    timeout: float = 60.0  # seconds until the response must be complete


def write(directory: Path, route: Route) -> None:
    """Publish the route durably, replacing the service's earlier one. Raises OSError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".", suffix=".new", dir=directory)  # mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(route), file)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(_path(directory, route.service_id))
    except BaseException:
        Path(name).unlink()
        raise


def remove(directory: Path, service_id: str) -> None:
    """Delete the service's route, if there is one."""
    _path(directory, service_id).unlink(missing_ok=True)


def read(directory: Path, service_id: str) -> Route | None:
    """Return the service's route or None. Raises OSError or ValueError if it can't be read."""
    try:
        text = _path(directory, service_id).read_text()
    except FileNotFoundError:
        if not directory.is_dir():
            raise
        return None
    try:
        return Route(**json.loads(text))
    except TypeError as reason:
        raise ValueError(f"The route of {service_id} is damaged: {reason}. Roll the service out again.") from None


def _path(directory: Path, service_id: str) -> Path:
    if not SERVICE_ID.fullmatch(service_id):
        raise ValueError(f"{service_id!r} is not a service id.")
    return directory / f"{service_id}.json"
