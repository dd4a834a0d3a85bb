"""Lists with search, sorting, filters and pages, all from the query string, in a constant number of queries."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

from django.core.paginator import Page, Paginator
from django.db.models import F, Q, QuerySet, TextField
from django.db.models.functions import Cast
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, render

from dashboard.catalog.badges import with_badges
from dashboard.catalog.lineage import NOUN, PATHS, Row, belonging_to
from dashboard.catalog.picker import parse_pks
from dashboard.http.request import Request
from deployments.models import HostingAccount

PAGE_SIZE = 25  # rows; they fit on a screen and render in half the time of fifty
MAX_QUERY_CHARS = 200


@dataclass(frozen=True)
class Column:
    """One column of a list.

    `key`: its name in `?sort=`. `order`: the fields that it is sorted by; without any it can't be sorted. `css`: the
    class of its cells.
    """

    key: str
    label: str
    order: tuple[str, ...] = ()
    css: str = ""


@dataclass(frozen=True)
class Choice:
    """A filter: its label and the condition that its rows meet.

    `opposite`: the condition of all other rows, in a form that lets databases use an index. `count`: returns the number
    of an account's rows that meet `where`, faster than by testing each row.
    """

    label: str
    where: Q
    opposite: Q | None = None
    count: Callable[[QuerySet[Any]], int] | None = None


@dataclass(frozen=True)
class ParentFilter:
    """A filter for rows that belong to another row, by lineage, such as `?manifest=12`.

    `url_without`: the query string without this filter.
    """

    noun: str
    row: Row
    url_without: str


@dataclass(frozen=True)
class ListConfig:
    """The definition of a list: the folder of its templates, its columns, searched fields and filters.

    `states`: rows in any of the selected states are shown (`?state=failed&state=open`). `flags`: each set flag narrows
    the list (`?newest=1`). `exact`: fields to filter by one value, with values and labels (`?kind=...`).
    `hidden_state`: the state whose rows are shown only when it is selected.
    """

    folder: str
    columns: tuple[Column, ...]
    search: tuple[str, ...]
    states: Mapping[str, Choice] = field(default_factory=dict)
    flags: Mapping[str, Choice] = field(default_factory=dict)
    exact: Mapping[str, Sequence[tuple[str, str]]] = field(default_factory=dict)
    default_sort: str = "-added"
    hidden_state: str = "gone"
    has_badges: bool = True

    @property
    def orders(self) -> dict[str, tuple[str, ...]]:
        """The fields to sort by, by the key of their column."""
        return {column.key: column.order for column in self.columns if column.order}


class Listing:
    """One page of a list, as requested by the query string of `request`. Unknown values are ignored."""

    def __init__(self, request: Request, account: HostingAccount, all_rows: QuerySet[Any], config: ListConfig) -> None:
        self.account, self.config, self.all_rows = account, config, all_rows
        query = request.GET
        self.search_query = query.get("q", "").replace("\x00", "").strip()[:MAX_QUERY_CHARS]
        self.selected_states = [state for state in query.getlist("state") if state in config.states]
        self.set_flags = [name for name in config.flags if query.get(name) == "1"]
        self.exact = {name: query[name] for name, known in config.exact.items() if query.get(name) in dict(known)}
        self.parent_filters = _parent_filters(request, account, all_rows.model)
        sort = query.get("sort", "")
        self.sort = sort if sort.lstrip("-") in config.orders else config.default_sort
        paginator = Paginator(self._sorted(self._filtered()), PAGE_SIZE)
        if (count := self._known_count()) is not None:
            paginator.count = count  # a cached property
        self.page: Page[Any] = paginator.get_page(query.get("page"))

    @cached_property
    def rows(self) -> list[Any]:
        """The rows of the page, with badges if the list has them.

        First only the keys, which an index has: otherwise the database would read every row of all earlier pages.
        """
        keys = list(cast(QuerySet[Any], self.page.object_list).values_list("pk", flat=True))
        found = {row.pk: row for row in self.all_rows.filter(pk__in=keys)}
        rows = [found[key] for key in keys if key in found]
        return with_badges(self.account, rows) if self.config.has_badges else rows

    @property
    def found_count(self) -> int:
        """The number of rows on all pages."""
        return self.page.paginator.count

    @property
    def is_narrowed(self) -> bool:
        """True if the query string has a search or a filter."""
        return bool(self.search_query or self.selected_states or self.set_flags or self.exact or self.parent_filters)

    @cached_property
    def total_count(self) -> int:
        """The number of rows without search and filters, including hidden ones."""
        return self.all_rows.count()

    @property
    def hidden_count(self) -> int:
        """The number of rows that search, filters and the hidden state leave out."""
        return self.total_count - self.found_count

    @property
    def states(self) -> list[tuple[str, str, bool]]:
        """The states to filter by, as triples of value, label and whether it is selected."""
        return [(value, choice.label, value in self.selected_states) for value, choice in self.config.states.items()]

    @property
    def flags(self) -> list[tuple[str, str, bool]]:
        """The flags, as triples of name, label and whether it is set."""
        return [(name, choice.label, name in self.set_flags) for name, choice in self.config.flags.items()]

    @property
    def selects(self) -> list[tuple[str, Sequence[tuple[str, str]], str]]:
        """The exact filters, as triples of name, values with labels, and the selected value or ""."""
        return [(name, known, self.exact.get(name, "")) for name, known in self.config.exact.items()]

    @property
    def page_numbers(self) -> list[int | str]:
        """The page numbers to link to, with "…" for gaps."""
        return list(self.page.paginator.get_elided_page_range(self.page.number, on_each_side=2, on_ends=1))

    @property
    def row_template(self) -> str:
        """The template of one row."""
        return f"{self.config.folder}/_row.html"

    @property
    def empty_template(self) -> str:
        """The template of a list without rows."""
        return f"{self.config.folder}/_empty.html"

    @property
    def headings(self) -> list[dict[str, Any]]:
        """The headings of the columns, with the `sort` value that a click requests and the current direction."""
        sorted_by, descending = self.sort.lstrip("-"), self.sort.startswith("-")
        return [
            {
                "label": column.label,
                "css": column.css,
                "sortable": bool(column.order),
                "next": f"-{column.key}" if column.key == sorted_by and not descending else column.key,
                "direction": ("descending" if descending else "ascending") if column.key == sorted_by else "",
            }
            for column in self.config.columns
        ]

    def _filtered(self) -> QuerySet[Any]:
        rows = self.all_rows.filter(*(self.config.flags[name].where for name in self.set_flags), **self.exact)
        for parent in self.parent_filters:
            rows = belonging_to(parent.row, rows)
        if self.selected_states:
            rows = rows.filter(_any_of(self.config.states[state].where for state in self.selected_states))
        else:
            rows = self._without_hidden(rows)
        return matching(rows, self.search_query, self.config.search)

    def _without_hidden(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        hidden = self.config.states.get(self.config.hidden_state)
        if hidden is None:
            return rows
        return rows.exclude(hidden.where) if hidden.opposite is None else rows.filter(hidden.opposite)

    def _known_count(self) -> int | None:
        """Return the number of rows if a single flag narrows the list and can count them, else None."""
        others = self.search_query or self.selected_states or self.exact or self.parent_filters
        if others or len(self.set_flags) != 1 or not (count := self.config.flags[self.set_flags[0]].count):
            return None
        return count(self._without_hidden(self.all_rows))

    def _sorted(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        descending = self.sort.startswith("-")
        fields = (F(name) for name in (*self.config.orders[self.sort.lstrip("-")], "pk"))
        return rows.order_by(*(f.desc(nulls_last=True) if descending else f.asc(nulls_first=True) for f in fields))


def matching(rows: QuerySet[Any], text: str, fields: tuple[str, ...]) -> QuerySet[Any]:
    """Return the rows in which every word of `text` occurs in at least one of the `fields`."""
    words = text.split()
    if words:
        rows = rows.alias(**{f"text_of_{name}": Cast(name, TextField()) for name in fields})
    for word in words:
        rows = rows.filter(_any_of(Q(**{f"text_of_{name}__has_word": word}) for name in fields))
    return rows


def _parent_filters(request: Request, account: HostingAccount, row_class: type[Any]) -> list[ParentFilter]:
    """Return the filters in the query string. Raise Http404 for a row that the account doesn't have."""
    filters = []
    for parent_class, noun in NOUN.items():
        if row_class in PATHS[parent_class] and (pks := parse_pks(request.GET.get(noun))):
            query = request.GET.copy()
            del query[noun]
            row = get_object_or_404(parent_class.objects.filter(account=account), pk=pks[0])
            filters.append(ParentFilter(noun, row, f"?{query.urlencode()}"))
    return filters


def _any_of(conditions: Iterable[Q]) -> Q:
    combined = Q()
    for condition in conditions:
        combined |= condition
    return combined


def render_list(request: Request, listing: Listing, **context: Any) -> HttpResponse:
    """Render the page, or for htmx only the part that search, filters, sorting and paging change."""
    partial = request.htmx.target == "list"
    template = "_shared/_list.html" if partial else f"{listing.config.folder}/list.html"
    return render(request, template, {"listing": listing, **context})
