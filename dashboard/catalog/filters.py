"""States that lists filter by, as database conditions."""

from django.db.models import Exists, OuterRef, Q, Subquery
from django.db.models.lookups import Exact

from dashboard.catalog.listing import Choice
from deployments.models import Operation
from deployments.models.operation import OPEN, State

GONE = Choice("Gone", Q(vanished_at__isnull=False), opposite=Q(vanished_at__isnull=True))


def in_flight(noun: str) -> Q:
    """Return the condition for rows with an open operation; `noun` is the field of Operation that refers to them."""
    return Q(Exists(Operation.objects.filter(**{noun: OuterRef("pk")}, state__in=sorted(OPEN))))


def last_operation_failed(noun: str) -> Q:
    """Return the condition for rows whose newest operation failed; `noun` as for `in_flight`."""
    newest = Operation.objects.filter(**{noun: OuterRef("pk")}).order_by("-requested_at").values("state")[:1]
    return Q(Exact(Subquery(newest), State.FAILED))


def of_mirrored(noun: str) -> dict[str, Choice]:
    """Return the states of models, manifests and images, which mirror resources of the server."""
    return {
        "ready": Choice("Ready", Q(mms_id__isnull=False, vanished_at__isnull=True)),
        "open": Choice("In progress", in_flight(noun)),
        "failed": Choice("Failed", last_operation_failed(noun)),
        "gone": GONE,
    }
