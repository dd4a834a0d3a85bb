"""What a gateway process knows of the routes: read from their files, at most ROUTE_CACHE_SECONDS old."""

import logging
import time
from pathlib import Path

from mms.gateway import routes
from mms.gateway.routes import Route

ROUTE_CACHE_SECONDS = 1.0
log = logging.getLogger(__name__)


class RouteUnreadableError(Exception):
    """The route cannot be read, and never was."""


class RouteCache:
    """Routes as last read. While they cannot be read, the last known ones stay in use."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[str, tuple[float, Route]] = {}

    def find(self, service_id: str, fresh: bool = False) -> Route | None:
        """The service's route, None when it has none; `fresh`: read it now. Raises RouteUnreadableError."""
        now = time.monotonic()
        until, known = self._known.get(service_id, (0.0, None))
        if known and now < until and not fresh:
            return known
        route = self._read(service_id, known)
        if route is None:
            self._known.pop(service_id, None)
        else:
            self._known[service_id] = (now + ROUTE_CACHE_SECONDS, route)
        return route

    def _read(self, service_id: str, known: Route | None) -> Route | None:
        if not routes.SERVICE_ID.fullmatch(service_id):
            return None
        try:
            return routes.read(self._directory, service_id)
        except FileNotFoundError:  # no service was ever rolled out, or the directory is away
            return known
        except (OSError, ValueError) as reason:
            log.error("the route of %s cannot be read, the last known one is used: %s", service_id, reason)
            if known is None:
                raise RouteUnreadableError from reason
            return known
