"""The list of operations."""

from django.db.models import Q, QuerySet

from dashboard.catalog.listing import Choice, Column, ListConfig
from deployments.models import Operation
from deployments.models.operation import OPEN, Kind, State

SUBJECTS = ("model", "manifest", "image", "service")  # the fields that refer to an operation's resource
LIST = ListConfig(
    folder="operations",
    columns=(
        Column("kind", "Operation", ("kind",)),
        Column("state", "State", ("state",)),
        Column("by", "By", ("requested_by",), css="minor"),
        Column("took", "Took", css="num minor"),
        Column("added", "Requested", ("requested_at",), css="num"),
    ),
    search=("kind", "requested_by", "error_message", "model__name", "service__name", "image__description"),
    exact={"kind": Kind.choices},
    states={
        "open": Choice("In flight", Q(state__in=sorted(OPEN))),
        "uncertain": Choice("Uncertain", Q(state=State.UNCERTAIN)),
        "succeeded": Choice("Succeeded", Q(state=State.SUCCEEDED)),
        "failed": Choice("Failed", Q(state=State.FAILED)),
        "canceled": Choice("Canceled", Q(state=State.CANCELED)),
    },
)


def operations_with_subjects() -> QuerySet[Operation]:
    """Return all operations with the resources that they create, change or delete, without scoring keys."""
    return Operation.objects.select_related(*SUBJECTS).defer("service__scoring_key")
