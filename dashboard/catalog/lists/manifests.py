"""The list of manifests."""

from django.db.models import Prefetch, QuerySet

from dashboard.catalog import filters
from dashboard.catalog.listing import Column, ListConfig
from deployments.models import Manifest, RegisteredModel

MODEL_NAMES = RegisteredModel.objects.only("name", "version").order_by("name", "version")
LIST = ListConfig(
    folder="manifests",
    columns=(
        Column("name", "Manifest", ("description",)),
        Column("state", "State"),
        Column("models", "Models"),
        Column("runtime", "Runtime", ("runtime_type",), css="minor"),
        Column("by", "By", ("created_by",), css="minor"),
        Column("added", "Created", ("added_at",), css="num"),
    ),
    search=("description", "runtime_type", "driver_program", "mms_id"),
    states=filters.of_mirrored("manifest"),
)


def manifests_with_models() -> QuerySet[Manifest]:
    """Return all manifests with the names and versions of their models."""
    return Manifest.objects.prefetch_related(Prefetch("models", MODEL_NAMES))
