"""The list of images."""

from django.db.models import Prefetch, QuerySet

from dashboard.catalog import filters
from dashboard.catalog.listing import Column, ListConfig
from dashboard.catalog.lists.manifests import MODEL_NAMES
from deployments.models import Image

LIST = ListConfig(
    folder="images",
    columns=(
        Column("name", "Image", ("description",)),
        Column("state", "State"),
        Column("models", "Models"),
        Column("registry", "Registry", ("registry__name", "registry_location"), css="minor"),
        Column("by", "By", ("created_by",), css="minor"),
        Column("added", "Requested", ("added_at",), css="num"),
    ),
    search=("description", "registry__name", "digest", "mms_id"),
    states=filters.of_mirrored("image"),
)


def images_with_models() -> QuerySet[Image]:
    """Return all images with their models and registry, without long or secret fields."""
    rows = Image.objects.select_related("manifest", "registry").defer(
        "manifest__asset_list", "manifest__properties", "registry__password"
    )
    return rows.prefetch_related(Prefetch("manifest__models", MODEL_NAMES))
