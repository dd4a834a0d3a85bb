"""Lineage from model to manifest, image and service: the sources of a row, and the rows created from it."""

from dataclasses import dataclass
from typing import Any, TypeAlias

from django.db.models import QuerySet

from dashboard.catalog.badges import with_badges
from deployments.models import Asset, Image, Manifest, RegisteredModel, Service

Row: TypeAlias = Asset | RegisteredModel | Manifest | Image | Service
STAGE_SIZE = 3  # rows shown per stage

# By class, the lookups that find related rows of the other classes.
PATHS: dict[type[Any], dict[type[Any], str]] = {
    Asset: {Manifest: "assets", Image: "manifest__assets", Service: "image__manifest__assets"},
    RegisteredModel: {Manifest: "models", Image: "manifest__models", Service: "image__manifest__models"},
    Manifest: {RegisteredModel: "manifests", Image: "manifest", Service: "image__manifest"},
    Image: {RegisteredModel: "manifests__images", Manifest: "images", Service: "image"},
    Service: {RegisteredModel: "manifests__images__services", Manifest: "images__services", Image: "services"},
}
ORDER = (Asset, RegisteredModel, Manifest, Image, Service)
NOUN: dict[type[Any], str] = {
    Asset: "asset",
    RegisteredModel: "model",
    Manifest: "manifest",
    Image: "image",
    Service: "service",
}


@dataclass(frozen=True)
class Stage:
    """The related rows of one noun.

    `more`: the number of related rows that aren't in `rows`. `is_current`: True if it contains the row itself.
    """

    noun: str
    rows: list[Any]
    more: int
    is_current: bool

    @property
    def detail(self) -> str:
        """The name of the URL of one row's page."""
        return f"get_{self.noun}"

    @property
    def listing(self) -> str:
        """The name of the URL of the list."""
        return f"list_{self.noun}s"


def lineage(row: Row) -> list[Stage]:
    """Return the stages of `row`, first to last, in a constant number of queries."""
    first = Asset if isinstance(row, Asset) else RegisteredModel
    return [_stage(row, noun) for noun in (first, Manifest, Image, Service)]


def _stage(row: Row, noun: type[Any]) -> Stage:
    if isinstance(row, noun):
        return Stage(NOUN[noun], [row], 0, is_current=True)
    related = _related(row, noun)
    rows = list(related[: STAGE_SIZE + 1])
    more = related.count() - STAGE_SIZE if len(rows) > STAGE_SIZE else 0
    shown = rows[:STAGE_SIZE] if noun is Asset else with_badges(row.account, rows[:STAGE_SIZE])
    return Stage(NOUN[noun], shown, more, is_current=False)


def belonging_to(row: Row, rows: QuerySet[Any]) -> QuerySet[Any]:
    """Return those of `rows` that `row` was created from or that were created from it."""
    pks = rows.model.objects.filter(**{PATHS[type(row)][rows.model]: row.pk}).values("pk")
    return rows.filter(pk__in=pks)


def _related(row: Row, noun: Any) -> QuerySet[Any]:
    """Return the related rows, newest first. Later stages leave out rows that the server no longer has."""
    related = belonging_to(row, noun.objects.filter(account=row.account_id))
    return related.filter(vanished_at=None) if ORDER.index(noun) > ORDER.index(type(row)) else related
