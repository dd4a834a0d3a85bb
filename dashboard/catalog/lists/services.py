"""The list of services."""

from django.db.models import Prefetch, Q, QuerySet

from dashboard.catalog import filters
from dashboard.catalog.listing import Choice, Column, ListConfig
from dashboard.catalog.lists.manifests import MODEL_NAMES
from deployments.models import Service

LIST = ListConfig(
    folder="services",
    columns=(
        Column("name", "Service", ("name",)),
        Column("state", "State", ("health", "state")),
        Column("models", "Serves"),
        Column("image", "Image", ("image__description",), css="minor"),
        Column("by", "By", ("created_by",), css="minor"),
        Column("updated", "Updated", ("updated_at", "added_at"), css="num minor"),
        Column("added", "Created", ("added_at",), css="num minor"),
    ),
    search=("name", "description", "image__description", "mms_id"),
    states={
        "healthy": Choice("Healthy", Q(health="healthy")),
        "trouble": Choice("In trouble", Q(health__in=["unhealthy", "crashed"])),
        "open": Choice("In flight", filters.in_flight("service")),
        "failed": Choice("Last change failed", filters.last_operation_failed("service")),
        "gone": filters.GONE,
    },
)


def services_with_models() -> QuerySet[Service]:
    """Return all services with their image and its models, without long or secret fields."""
    rows = Service.objects.select_related("image__manifest", "cluster").defer(
        "scoring_key", "cluster__kube_config", "image__manifest__asset_list", "image__manifest__properties"
    )
    return rows.prefetch_related(Prefetch("image__manifest__models", MODEL_NAMES))
