"""model → manifest → image → service: what a row was made from, and what was made from it."""

from dataclasses import dataclass
from typing import Any, TypeAlias

from django.db.models import QuerySet

from dashboard.catalog.badges import with_badges
from deployments.models import Asset, Image, Manifest, RegisteredModel, Service

Row: TypeAlias = Asset | RegisteredModel | Manifest | Image | Service
SHOWN = 3  # rows per stage

# From the row of the outer class to the rows of the inner one, as a lookup on the latter.
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
    """The rows of one noun that belong together with the row `here`; `more` of them are not among `rows`."""

    noun: str
    rows: list[Any]
    more: int
    here: bool

    @property
    def detail(self) -> str:
        return f"get_{self.noun}"

    @property
    def listing(self) -> str:
        return f"list_{self.noun}s"


def lineage(row: Row) -> list[Stage]:
    """The stages of `row`, first to last; the number of queries does not depend on how much there is."""
    first = Asset if isinstance(row, Asset) else RegisteredModel
    return [_stage(row, noun) for noun in (first, Manifest, Image, Service)]


def _stage(row: Row, noun: type) -> Stage:
    if isinstance(row, noun):
        return Stage(NOUN[noun], [row], 0, here=True)
    related = _related(row, noun)
    rows = list(related[: SHOWN + 1])
    more = related.count() - SHOWN if len(rows) > SHOWN else 0
    shown = rows[:SHOWN] if noun is Asset else with_badges(row.account, rows[:SHOWN])
    return Stage(NOUN[noun], shown, more, here=False)


def belonging_to(row: Row, rows: QuerySet) -> QuerySet:
    """Those of `rows` that `row` was made from, or that were made from it."""
    pks = rows.model.objects.filter(**{PATHS[type(row)][rows.model]: row.pk}).values("pk")
    return rows.filter(pk__in=pks)


def _related(row: Row, noun: Any) -> QuerySet:
    """Newest first; of what came after `row`, only what the server still has."""
    related = belonging_to(row, noun.objects.filter(account=row.account_id))
    return related.filter(vanished_at=None) if ORDER.index(noun) > ORDER.index(type(row)) else related
