"""Pickers: check boxes or radio buttons with a search, for choosing rows from lists of any length.

Picked rows come first, then the rows that match the search. The server renders the whole picker each time, so it also
works as a plain form without JavaScript.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import QuerySet

MAX_FOUND = 10  # rows shown besides the picked ones; a search narrows them


@dataclass(frozen=True)
class Choice:
    """One row of a picker. `note`: a word next to the label, such as "newest"."""

    pk: int
    label: str
    detail: str = ""
    added: datetime | None = None
    note: str = ""

    @property
    def key(self) -> str:
        """The primary key as the form submits it."""
        return str(self.pk)


@dataclass(frozen=True)
class Picker:
    """The rows to pick from for the form field `name`, and the picked ones."""

    name: str
    noun: str
    many: bool
    query: str
    picked: list[Choice]
    found: list[Choice]
    has_more: bool  # more rows match the search than are shown

    @property
    def plural(self) -> str:
        """The noun of several rows."""
        return f"{self.noun}s"


def parse_pks(value: Any) -> list[int]:
    """Return the primary keys in a form value: one or a list of them, as str, int or row. Ignore anything else."""
    values = value if isinstance(value, list | tuple | QuerySet) else [value]
    texts = [str(getattr(item, "pk", item)) for item in values if item is not None]
    return [int(text) for text in dict.fromkeys(texts) if text.isascii() and text.isdigit() and len(text) < 19]


def make_picker(
    name: str,
    rows: QuerySet[Any],
    *,
    noun: str,
    many: bool,
    value: Any,
    query: str,
    search: Callable[[QuerySet[Any], str], QuerySet[Any]],
    describe: Callable[[Sequence[Any]], list[Choice]],
) -> Picker:
    """Return the picker of the field `name` over `rows`, with `value` picked and the rows that match `query`.

    `search(rows, query)` filters the rows; `describe(rows)` returns them as choices.
    """
    pks = parse_pks(value)
    by_pk = rows.in_bulk(pks)
    picked = [by_pk[pk] for pk in pks if pk in by_pk]
    matches = list((search(rows, query) if query else rows).exclude(pk__in=pks)[: MAX_FOUND + 1])
    return Picker(
        name=name,
        noun=noun,
        many=many,
        query=query,
        picked=describe(picked),
        found=describe(matches[:MAX_FOUND]),
        has_more=len(matches) > MAX_FOUND,
    )
