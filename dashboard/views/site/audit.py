"""The audit: who did what, when, on what, from where, with which result."""

import csv
import json
from typing import Any

from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from dashboard.access.guards import operators
from dashboard.audit.models import AuditEntry
from dashboard.forms.site.audit import AuditFilterForm
from dashboard.http.request import Request

ROWS = 50
CSV_MOST = 100_000  # rows of one file; the filters give the rest
COLUMNS = ("at", "actor", "via", "action", "account_name", "target", "address", "result", "before", "after")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for more than a text


@require_safe
@operators
def see_audit(request: Request, accounts: frozenset[int] | None) -> HttpResponse:
    """The entries of the accounts that the reader operates; an administrator sees all. `?format=csv` is a file."""
    form = AuditFilterForm(entries_of(accounts), request.GET)
    found = form.find()
    if request.GET.get("format") == "csv":
        return _file(found)
    page = Paginator(found, ROWS).get_page(request.GET.get("page"))
    pages = list(page.paginator.get_elided_page_range(page.number, on_each_side=2, on_ends=1))
    facts = {"form": form, "page": page, "page_numbers": pages, "everything": accounts is None}
    return render(request, "audit/list.html", facts)


def entries_of(accounts: frozenset[int] | None) -> QuerySet[AuditEntry]:
    """The entries of these accounts; None: all that there are."""
    return AuditEntry.objects.all() if accounts is None else AuditEntry.objects.filter(account_id__in=accounts)


def _file(found: QuerySet[AuditEntry]) -> HttpResponse:
    rows = found.values_list(*COLUMNS)[:CSV_MOST]
    headers = {"Content-Disposition": 'attachment; filename="audit.csv"'}
    response = HttpResponse(content_type="text/csv; charset=utf-8", headers=headers)
    writer = csv.writer(response)
    writer.writerow(COLUMNS)
    writer.writerows([_cell(value) for value in row] for row in rows.iterator(2000))
    return response


def _cell(value: Any) -> str:
    """As text that a spreadsheet takes for nothing else."""
    if value is None:
        return ""
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    text = value.isoformat() if hasattr(value, "isoformat") else str(value)
    return f"'{text}" if text.startswith(FORMULA) else text
