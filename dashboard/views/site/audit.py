"""The audit log, as a page and as a CSV file."""

import csv
import json
from typing import Any

from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from dashboard.access.guards import operators
from dashboard.audit.entries import PAGE_SIZE, entries_of
from dashboard.audit.models import AuditEntry
from dashboard.forms.site.audit import AuditFilterForm
from dashboard.http.request import Request

MAX_CSV_ROWS = 100_000  # rows per file; filters select the others
CSV_CHUNK_ROWS = 2000
COLUMNS = ("at", "actor", "via", "action", "account_name", "target", "address", "result", "before", "after")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a cell that begins with one of these is a formula to spreadsheets


@require_safe
@operators
def see_audit(request: Request, accounts: frozenset[int] | None) -> HttpResponse:
    """List the entries of the accounts that the user operates; all for administrators. `?format=csv`: as a file."""
    form = AuditFilterForm(entries_of(accounts), request.GET)
    entries = form.find_entries()
    if request.GET.get("format") == "csv":
        return _csv_response(entries)
    page = Paginator(entries, PAGE_SIZE).get_page(request.GET.get("page"))
    pages = list(page.paginator.get_elided_page_range(page.number, on_each_side=2, on_ends=1))
    facts = {"form": form, "page": page, "page_numbers": pages, "everything": accounts is None}
    return render(request, "audit/list.html", facts)


def _csv_response(entries: QuerySet[AuditEntry]) -> HttpResponse:
    rows = entries.values_list(*COLUMNS)[:MAX_CSV_ROWS]
    headers = {"Content-Disposition": 'attachment; filename="audit.csv"'}
    response = HttpResponse(content_type="text/csv; charset=utf-8", headers=headers)
    writer = csv.writer(response)
    writer.writerow(COLUMNS)
    writer.writerows([_cell(value) for value in row] for row in rows.iterator(CSV_CHUNK_ROWS))
    return response


def _cell(value: Any) -> str:
    """Return `value` as text that no spreadsheet evaluates as a formula."""
    if value is None:
        return ""
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    text = value.isoformat() if hasattr(value, "isoformat") else str(value)
    return f"'{text}" if text.startswith(FORMULA) else text
