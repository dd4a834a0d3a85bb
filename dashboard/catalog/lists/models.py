"""The list of registered models."""

from django.db.models import Exists, OuterRef, Q

from dashboard.catalog import filters
from dashboard.catalog.listing import Choice, Column, ListConfig
from deployments.models import RegisteredModel

NEWER_VERSIONS = RegisteredModel.objects.filter(
    account=OuterRef("account"), name=OuterRef("name"), version__gt=OuterRef("version"), vanished_at=None
)
LIST = ListConfig(
    folder="models",
    columns=(
        Column("name", "Name", ("name", "version")),
        Column("version", "Version", ("version",), css="num"),
        Column("state", "State"),
        Column("tags", "Tags", css="minor"),
        Column("by", "By", ("created_by",), css="minor"),
        Column("added", "Registered", ("added_at",), css="num"),
    ),
    search=("name", "description", "tags"),
    states=filters.of_mirrored("model"),
    flags={"newest": Choice("Newest versions only", ~Q(Exists(NEWER_VERSIONS)))},
)
