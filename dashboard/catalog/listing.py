"""Lists: search, sort, filter by state, pages; all of it in the URL, with a constant number of queries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from django.core.paginator import Page, Paginator
from django.db.models import F, Q, QuerySet, TextField
from django.db.models.functions import Cast
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render

from dashboard.catalog.badges import with_badges
from dashboard.catalog.lineage import NOUN, PATHS, Row, belonging_to
from dashboard.catalog.picker import numbers
from dashboard.http.request import Request
from deployments.models import HostingAccount

ROWS = 25  # per page: what a screen shows, and half the time of rendering fifty


@dataclass(frozen=True)
class Column:
    """One column: what `?sort=` calls it, its heading, the fields it is ordered by, and a class for its cells."""

    key: str
    label: str
    order: tuple[str, ...] = ()
    css: str = ""


@dataclass(frozen=True)
class Choice:
    """One state to filter by."""

    label: str
    where: Q


@dataclass(frozen=True)
class Within:
    """A row that the list is narrowed to, by the lineage: `?manifest=12`; `without` is the same query without it."""

    noun: str
    row: Row
    without: str


@dataclass(frozen=True)
class Shape:
    """What a kind of list looks like: its templates' folder, columns, searched fields and states."""

    folder: str
    columns: tuple[Column, ...]
    search: tuple[str, ...]
    states: Mapping[str, Choice] = field(default_factory=dict)  # any of those chosen: ?state=failed&state=open
    toggles: Mapping[str, Choice] = field(default_factory=dict)  # each as it is switched on: ?newest=1
    exact: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)  # a field's values: ?kind=…
    sort: str = "-added"
    hidden: str = "gone"  # the state that is shown only to those who ask for it
    badges: bool = True


class Listing:
    """One page of a list, as asked for by the query string of `request`."""

    def __init__(self, request: Request, account: HostingAccount, everything: QuerySet, shape: Shape) -> None:
        self.account, self.shape, self.everything = account, shape, everything
        asked = request.GET
        self.q = asked.get("q", "").replace("\x00", "").strip()[:200]
        self.chosen = [state for state in asked.getlist("state") if state in shape.states]
        self.toggled = [name for name in shape.toggles if asked.get(name) == "1"]
        self.exact = {name: asked[name] for name, known in shape.exact.items() if asked.get(name) in dict(known)}
        self.within = _within(request, account, everything.model)
        self.sort = asked.get("sort", "") if asked.get("sort", "").lstrip("-") in self._orders() else shape.sort
        self.page: Page = Paginator(self._sorted(self._found()), ROWS).get_page(asked.get("page"))

    @cached_property
    def rows(self) -> list[Any]:
        """The rows of the page, each with its badge."""
        if self.shape.badges:
            return with_badges(self.account, self.page.object_list)
        return list(self.page.object_list)

    @property
    def found(self) -> int:
        return self.page.paginator.count

    @property
    def narrowed(self) -> bool:
        """Whether the reader asked for less than everything."""
        return bool(self.q or self.chosen or self.toggled or self.exact or self.within)

    @cached_property
    def total(self) -> int:
        """How many there are without search and filter, hidden ones included."""
        return self.everything.count()

    @property
    def hides(self) -> int:
        """How many rows search, filter and the hidden state keep out of sight."""
        return self.total - self.found

    @property
    def states(self) -> list[tuple[str, str, bool]]:
        """The states to choose from: value, label, whether chosen."""
        return [(value, choice.label, value in self.chosen) for value, choice in self.shape.states.items()]

    @property
    def toggles(self) -> list[tuple[str, str, bool]]:
        """The switches: name, label, whether on."""
        return [(name, choice.label, name in self.toggled) for name, choice in self.shape.toggles.items()]

    @property
    def selects(self) -> list[tuple[str, Sequence[tuple[str, str]], str]]:
        """The fields to choose a value of: name, values with labels, the value chosen or ""."""
        return [(name, known, self.exact.get(name, "")) for name, known in self.shape.exact.items()]

    @property
    def page_numbers(self) -> list[int | str]:
        """The pages to offer, with "…" where some are left out."""
        return list(self.page.paginator.get_elided_page_range(self.page.number, on_each_side=2, on_ends=1))

    @property
    def row_template(self) -> str:
        return f"{self.shape.folder}/_row.html"

    @property
    def empty_template(self) -> str:
        return f"{self.shape.folder}/_empty.html"

    @property
    def headings(self) -> list[dict[str, Any]]:
        """The columns with what a click on their heading sorts by, and how they are sorted now."""
        sorted_by, descending = self.sort.lstrip("-"), self.sort.startswith("-")
        return [
            {
                "label": column.label,
                "css": column.css,
                "sortable": bool(column.order),
                "next": f"-{column.key}" if column.key == sorted_by and not descending else column.key,
                "direction": ("descending" if descending else "ascending") if column.key == sorted_by else "",
            }
            for column in self.shape.columns
        ]

    def _orders(self) -> dict[str, tuple[str, ...]]:
        return {column.key: column.order for column in self.shape.columns if column.order}

    def _found(self) -> QuerySet:
        rows = self.everything.filter(*(self.shape.toggles[name].where for name in self.toggled), **self.exact)
        for whole in self.within:
            rows = belonging_to(whole.row, rows)
        if self.chosen:
            rows = rows.filter(_any_of(self.shape.states[state].where for state in self.chosen))
        elif self.shape.hidden in self.shape.states:
            rows = rows.exclude(self.shape.states[self.shape.hidden].where)
        return matching(rows, self.q, self.shape.search)

    def _sorted(self, rows: QuerySet) -> QuerySet:
        descending = self.sort.startswith("-")
        fields = (F(name) for name in (*self._orders()[self.sort.lstrip("-")], "pk"))
        return rows.order_by(*(f.desc(nulls_last=True) if descending else f.asc(nulls_first=True) for f in fields))


def matching(rows: QuerySet, text: str, fields: tuple[str, ...]) -> QuerySet:
    """The rows in which every word of `text` occurs in at least one of the `fields`."""
    words = text.split()
    if words:
        rows = rows.alias(**{f"text_of_{name}": Cast(name, TextField()) for name in fields})
    for word in words:
        rows = rows.filter(_any_of(Q(**{f"text_of_{name}__icontains": word}) for name in fields))
    return rows


def _within(request: Request, account: HostingAccount, noun: type) -> list[Within]:
    found = []
    for cls, name in NOUN.items():
        if noun in PATHS[cls] and (pks := numbers(request.GET.get(name))):
            without = request.GET.copy()
            del without[name]
            row = get_object_or_404(cls.objects.filter(account=account), pk=pks[0])
            found.append(Within(name, row, f"?{without.urlencode()}"))
    return found


def _any_of(conditions: Any) -> Q:
    found = Q()
    for condition in conditions:
        found |= condition
    return found


def render_list(request: Request, listing: Listing, **more: Any) -> HttpResponse:
    """The whole page, or for htmx only the part that search, filter, sort and pages change."""
    partial = request.htmx.target == "list"
    template = "_shared/_list.html" if partial else f"{listing.shape.folder}/list.html"
    return render(request, template, {"listing": listing, **more})
