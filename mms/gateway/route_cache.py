"""The routes that a gateway process knows: read from their files, at most ROUTE_CACHE_SECONDS old."""

import logging
import time
from pathlib import Path

from mms.gateway import routes
from mms.gateway.routes import Route

ROUTE_CACHE_SECONDS = 1.0
log = logging.getLogger(__name__)


class RouteUnreadableError(Exception):
    """The route cannot be read, and no earlier version of it is known."""


class RouteCache:
    """Routes as last read. While a route can't be read, its last known version stays in use."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[str, tuple[float, Route]] = {}

    def find(self, service_id: str, fresh: bool = False) -> Route | None:
        """Return the service's route or None; `fresh` bypasses the cache. Raises RouteUnreadableError."""
        now = time.monotonic()
        expires, known = self._known.get(service_id, (0.0, None))
        if known and now < expires and not fresh:
            return known
        route = self._read(service_id, known)
        if route is None:
            self._known.pop(service_id, None)
        else:
            route = known if route == known else route  # callers store what they derived from it
            self._known[service_id] = (now + ROUTE_CACHE_SECONDS, route)
        return route

    def is_known(self, service_id: str) -> bool:
        """Return True if the service's route has been read, and existed when it was read last."""
        return service_id in self._known

    def _read(self, service_id: str, known: Route | None) -> Route | None:
        if not routes.SERVICE_ID.fullmatch(service_id):
            return None
        try:
            return routes.read(self._directory, service_id)
        except FileNotFoundError:  # no service has been rolled out yet, or the directory is missing
            return known
        except (OSError, ValueError) as reason:
            log.error(  # noqa: TRY400 - the message includes the reason
                "Couldn't read the route of service %s: %s. Using its last known route.", service_id, reason
            )
            if known is None:
                raise RouteUnreadableError from reason
            return known
