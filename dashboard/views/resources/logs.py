"""Build and service logs: a page, the new lines for the script that follows them, and a file to keep."""

import re
from dataclasses import replace
from uuid import UUID

from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render

from dashboard.access.guards import requires
from dashboard.access.permissions import Permission
from dashboard.http.request import Request
from dashboard.views.forms.operation import operation_of
from dashboard.views.forms.service import service_of
from deployments.live import events
from deployments.models import HostingAccount, Image
from deployments.models.operation import Kind

PLAIN = "text/plain; charset=utf-8"
POSITION = re.compile(r"\d{1,20}(-\d{1,20})?", re.ASCII)


@requires(Permission.SEE)
def operation_log(request: Request, account: HostingAccount, pk: UUID) -> HttpResponse:
    operation = operation_of(account, pk)
    events.record_log_interest("operation", operation.pk)
    page = {"operation": operation, "page_badge": events.badge_of(operation), "ended": not operation.is_open}
    return _answer(request, events.operation_log_key(operation), "operations/operation_log.html", page)


@requires(Permission.SEE)
def image_log(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    """Lead to the log of the image's newest build."""
    image = get_object_or_404(Image.objects.filter(account=account), pk=pk)
    build = get_object_or_404(image.operations.filter(kind=Kind.CREATE_IMAGE)[:1])
    return redirect("operation_log", account.name, build.pk)


@requires(Permission.SEE)
def service_log(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    service = service_of(account, pk)
    events.record_log_interest("service", service.pk)
    page = {"service": service, "page_badge": events.badge_of(service), "ended": service.vanished_at is not None}
    return _answer(request, events.service_log_key(service), "services/service_log.html", page)


def _answer(request: Request, key: str, template: str, page: dict) -> HttpResponse:
    """The log under `key`: after ?after= as new lines, with ?download as a file, else the page with what is there."""
    part = read_whole(key, request.GET.get("after", ""))
    text = "".join(f"{line}\n" for line in part.lines)
    if "after" in request.GET:
        return HttpResponse(text, content_type=PLAIN, headers=progress(part, page["ended"]))
    if "download" in request.GET:
        name = f"{request.resolver_match.url_name}-{request.resolver_match.kwargs['pk']}.txt"
        return HttpResponse(text, content_type=PLAIN, headers={"Content-Disposition": f'attachment; filename="{name}"'})
    return render(request, template, {**page, "log": part, "log_text": text, "log_url": request.path})


def read_whole(key: str, after: str) -> events.LogPart:
    """All lines after the position `after`, or from the first one where that is no position; in however many parts."""
    part = events.read_log(key, after if POSITION.fullmatch(after) else "0")
    lines = part.lines
    while (rest := events.read_log(key, part.position)).lines:
        part = rest
        lines = [*lines, *rest.lines]
    return replace(part, lines=lines)


def progress(part: events.LogPart, ended: bool) -> dict[str, str]:
    """Where to go on reading; `X-Log-End` once nothing more will come (a log without lines may still be fetched)."""
    headers = {"X-Log-Position": part.position, "Cache-Control": "no-store"}
    return {**headers, "X-Log-End": "1"} if ended and not part.lines and part.position != "0" else headers
