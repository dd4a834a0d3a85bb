"""Routes: where the gateway finds each service, as one small file per service.

Whoever rolls a service out writes them; every gateway process reads them. A file is replaced by a rename, so a reader
sees the old route or the new one and nothing in between. Keys are in them as SHA-256 digests only.
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
    """Where requests for one service go. `address` is unix:/path or http://host:port."""

    service_id: str
    name: str
    revision: int
    address: str
    key_digests: list[str] = field(default_factory=list)  # sha256 of each valid key, as hex
    body_max_bytes: int = 16 * 1024**2
    timeout: float = 60.0  # seconds until an answer must have begun


def write(directory: Path, route: Route) -> None:
    """Publish the route, durably; replaces the one that the service has. Raises OSError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".", suffix=".new", dir=directory)  # mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(route), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, _path(directory, route.service_id))
    except BaseException:
        os.unlink(name)
        raise


def remove(directory: Path, service_id: str) -> None:
    """Withdraw the service's route; none is no error."""
    _path(directory, service_id).unlink(missing_ok=True)


def read(directory: Path, service_id: str) -> Route | None:
    """The service's route, None where it has none. Raises OSError or ValueError when it cannot be read."""
    try:
        text = _path(directory, service_id).read_text()
    except FileNotFoundError:
        if not directory.is_dir():
            raise
        return None
    try:
        return Route(**json.loads(text))
    except TypeError as reason:
        raise ValueError(f"The route of {service_id} is damaged: {reason}") from None


def _path(directory: Path, service_id: str) -> Path:
    if not SERVICE_ID.fullmatch(service_id):
        raise ValueError(f"{service_id!r} is no service id.")
    return directory / f"{service_id}.json"
