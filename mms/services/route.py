"""Routes for the gateways, derived from the database and written as files."""

from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path

from django.conf import settings

from mms.gateway import routes
from mms.gateway.route_cache import ROUTE_CACHE_SECONDS
from mms.models import Revision, Service
from mms.system.locks import locked

# Timeout of the gateway: longer than the service's own timeout of run(), so that its response arrives first.
RESPONSE_SECONDS = settings.MMS_RUN_TIMEOUT + 5.0
# How long gateways may use a route after it was replaced, with some time for requests in transit.
ROUTE_LIFETIME_SECONDS = ROUTE_CACHE_SECONDS + 0.2


def directory() -> Path:
    """Return the folder of the route files."""
    return settings.MMS_DIR / "routes"


def lock() -> AbstractContextManager[bool]:
    """Return the lock to hold while changing rows that affect a route, and writing that route.

    So the last writer has seen the latest rows. Never wait for this lock inside a transaction: its holder may be
    waiting for the database.
    """
    return locked(settings.RUN_DIR / "routes.lock")


def remove_temporary_files() -> None:
    """Remove temporary files of killed writers. Active writers hold the lock, so theirs aren't affected."""
    if any(directory().glob(".*.new")):
        with lock():
            for path in directory().glob(".*.new"):
                path.unlink(missing_ok=True)


def publish_route(service: Service) -> None:
    """Write the service's route, or remove it if it should have none. Call this after a commit."""
    with lock():
        publish(service)


def publish(service: Service) -> None:
    """Do the same for a caller that holds the lock."""
    rows = Revision.objects.select_related("service")
    active = rows.filter(service=service.pk, service__deleted_at=None, state="active").first()
    if active is None:
        routes.remove(directory(), str(service.pk))
    else:
        routes.write(directory(), route_to(active))


def is_current(active: Revision) -> bool:
    """Return True if the route file of an active revision matches the database."""
    try:
        return routes.read(directory(), str(active.service_id)) == route_to(active)
    except (OSError, ValueError):
        return False


def route_to(active: Revision) -> routes.Route:
    """Return the route to an active revision. Gateways receive only digests of the scoring keys."""
    keys = (active.service.primary_key, active.service.secondary_key)
    return routes.Route(
        service_id=str(active.service_id),
        name=active.service.name,
        revision=active.number,
        address=active.address,
        key_digests=[sha256(key.encode()).hexdigest() for key in keys if key],
        body_max_bytes=settings.MMS_BODY_MAX_BYTES,
        timeout=RESPONSE_SECONDS,
    )
