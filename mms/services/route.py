"""The route of a service follows from the database; here it is written down for the gateways."""

from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path

from django.conf import settings

from mms.gateway import routes
from mms.gateway.route_cache import ROUTE_CACHE_SECONDS
from mms.models import Revision, Service
from mms.system.locks import locked

# A gateway gives up this long after it asked: later than the service's own answer to a run() that takes too long.
ANSWER_SECONDS = settings.MMS_RUN_TIMEOUT + 5.0
# A gateway may use a route this long after it was replaced; the rest is for a request on its way.
ROUTE_LIFETIME_SECONDS = ROUTE_CACHE_SECONDS + 0.2


def directory() -> Path:
    return settings.MMS_DIR / "routes"


def lock() -> AbstractContextManager[bool]:
    """Held while rows that a route follows from are changed and the route is written: the last writer wrote the truth.

    Never wait for it inside a transaction: who holds it may be waiting for the database.
    """
    return locked(settings.RUN_DIR / "routes.lock")


def remove_temporary_files() -> None:
    """Remove what a killed writer left. Writers hold the lock, so theirs is not among these."""
    if any(directory().glob(".*.new")):
        with lock():
            for path in directory().glob(".*.new"):
                path.unlink(missing_ok=True)


def publish_route(service: Service) -> None:
    """Write the route that the database describes; withdraw it where there should be none. Call it after a commit."""
    with lock():
        publish(service)


def publish(service: Service) -> None:
    """The same for who holds the lock."""
    rows = Revision.objects.select_related("service")
    active = rows.filter(service=service.pk, service__deleted_at=None, state="active").first()
    if active is None:
        routes.remove(directory(), str(service.pk))
    else:
        routes.write(directory(), route_to(active))


def is_current(active: Revision) -> bool:
    """Whether the route to an active revision is written down as it should be."""
    try:
        return routes.read(directory(), str(active.service_id)) == route_to(active)
    except (OSError, ValueError):
        return False


def route_to(active: Revision) -> routes.Route:
    keys = (active.service.primary_key, active.service.secondary_key)
    return routes.Route(
        service_id=str(active.service_id),
        name=active.service.name,
        revision=active.number,
        address=active.address,
        key_digests=[sha256(key.encode()).hexdigest() for key in keys if key],
        body_max_bytes=settings.MMS_BODY_MAX_BYTES,
        timeout=ANSWER_SECONDS,
    )
