"""The list of registered models."""

from typing import Any

from django.db.models import Count, Exists, OuterRef, Q, QuerySet

from dashboard.catalog import filters
from dashboard.catalog.listing import Choice, Column, ListConfig
from deployments.models import RegisteredModel

NEWER_VERSIONS = RegisteredModel.objects.filter(
    account=OuterRef("account"), name=OuterRef("name"), version__gt=OuterRef("version"), vanished_at=None
)


def _count_newest(present: QuerySet[Any]) -> int:
    """Return the number of present models without a newer version: one for each name, and those not registered yet."""
    names = present.exclude(version=None).aggregate(names=Count("name", distinct=True))["names"]
    return int(names) + present.filter(version=None).count()


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
    flags={"newest": Choice("Newest versions only", ~Q(Exists(NEWER_VERSIONS)), count=_count_newest)},
)
