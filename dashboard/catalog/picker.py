"""Choosing rows from lists of any length: what is picked comes first, then what the search finds.

A picker is check boxes (or radio buttons) and a search; each answer of the server shows all of it anew. So it works as
a plain form, and HTMX only saves the reload.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import QuerySet

SHOWN = 10  # found rows; who needs another one searches for it


@dataclass(frozen=True)
class Choice:
    """One row as the picker shows it."""

    pk: int
    label: str
    detail: str = ""
    added: datetime | None = None
    note: str = ""  # a word beside the label: newest, runs now

    @property
    def key(self) -> str:
        """The primary key as a form sends it."""
        return str(self.pk)


@dataclass(frozen=True)
class Picker:
    """What a person can pick for the field `name`, and what they have picked."""

    name: str
    noun: str
    many: bool
    query: str
    picked: list[Choice]
    found: list[Choice]
    more: bool  # the search found more than is shown

    @property
    def plural(self) -> str:
        return f"{self.noun}s"


def numbers(value: Any) -> list[int]:
    """The primary keys in a form value: one or a list of them, as str, int or row; anything else is left out."""
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
    """The picker of the field `name` over `rows`, with `value` picked, showing what `search(rows, query)` finds."""
    wanted = numbers(value)
    by_pk = rows.in_bulk(wanted)
    picked = [by_pk[pk] for pk in wanted if pk in by_pk]
    found = list((search(rows, query) if query else rows).exclude(pk__in=wanted)[: SHOWN + 1])
    return Picker(
        name=name,
        noun=noun,
        many=many,
        query=query,
        picked=describe(picked),
        found=describe(found[:SHOWN]),
        more=len(found) > SHOWN,
    )
