"""Build and service logs: as a page, as new lines for the script that follows them, and as a download."""

from typing import Any
from uuid import UUID

from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render

from dashboard.access.guards import requires
from dashboard.access.permissions import Permission
from dashboard.actions.logs import PLAIN_TEXT, log_headers, log_text, read_log
from dashboard.actions.operations import operation_or_404
from dashboard.actions.services import service_or_404
from dashboard.catalog.visible_text import visible
from dashboard.http.request import Request
from deployments.live import events
from deployments.models import HostingAccount, Image
from deployments.models.operation import Kind


@requires(Permission.SEE)
def operation_log(request: Request, account: HostingAccount, pk: UUID) -> HttpResponse:
    """Show the log of an operation."""
    operation = operation_or_404(account, pk)
    events.record_log_interest("operation", operation.pk)
    page = {"operation": operation, "page_badge": events.badge_of(operation), "ended": not operation.is_open}
    return _log_response(request, events.operation_log_key(operation), "operations/operation_log.html", page)


@requires(Permission.SEE)
def image_log(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    """Redirect to the log of the image's newest build."""
    image = get_object_or_404(Image.objects.filter(account=account), pk=pk)
    build = get_object_or_404(image.operations.filter(kind=Kind.CREATE_IMAGE)[:1])
    return redirect("operation_log", account.name, build.pk)


@requires(Permission.SEE)
def service_log(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    """Show the log of a service."""
    service = service_or_404(account, pk)
    events.record_log_interest("service", service.pk)
    page = {"service": service, "page_badge": events.badge_of(service), "ended": service.vanished_at is not None}
    return _log_response(request, events.service_log_key(service), "services/service_log.html", page)


def _log_response(request: Request, key: str, template: str, page: dict[str, Any]) -> HttpResponse:
    """Respond with the log under `key`: with `?after=`, as new lines; with `?download`, as a file; else as a page."""
    part = read_log(key, request.GET.get("after", ""))
    text = log_text(part)
    if "after" in request.GET:
        return HttpResponse(visible(text), content_type=PLAIN_TEXT, headers=log_headers(part, page["ended"]))
    if "download" in request.GET:
        name = f"{request.resolver_match.url_name}-{request.resolver_match.kwargs['pk']}.txt"
        disposition = f'attachment; filename="{name}"'
        return HttpResponse(text, content_type=PLAIN_TEXT, headers={"Content-Disposition": disposition})
    return render(request, template, {**page, "log": part, "log_text": text, "log_url": request.path})
