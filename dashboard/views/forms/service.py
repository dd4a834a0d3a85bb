"""The forms that deploy, update and delete services."""

from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse

from dashboard.access.guards import requires
from dashboard.access.permissions import Permission
from dashboard.actions.services import can_use_production, check_service_permission, open_operation, service_or_404
from dashboard.audit.record import note_details
from dashboard.forms import snippets
from dashboard.forms.resources.changes import Change, image_changes
from dashboard.forms.resources.service import CreateServiceForm, UpdateServiceForm
from dashboard.http.request import Request
from dashboard.views.forms.submit import (
    INVALID_FORM_STATUS,
    handle_operation_form,
    initial_from_clone,
    initial_from_query,
    render_picker_rows,
)
from deployments.live import events
from deployments.models import HostingAccount, Image, Operation
from deployments.operations import submit


@requires(Permission.CREATE_SERVICE, previews=True)
def create_service(request: Request, account: HostingAccount) -> HttpResponse:
    """Show the form, a part of its picker (?part=), or a preview; on POST, request the service."""
    rights = {"production": can_use_production(request)}
    if request.GET.get("part"):
        return render_picker_rows(request, CreateServiceForm(account, request.GET, **rights))
    initial = {**initial_from_clone(request, account, "create_service"), **initial_from_query(request, "image")}
    form = CreateServiceForm(account, request.POST or None, initial=initial, **rights)
    return handle_operation_form(request, form, "services/create_service.html", success_url=_service_url)


@requires(Permission.UPDATE_SERVICE, previews=True)
def update_service(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    """Show the form, a part of its picker (?part=), or a preview; on POST, request the update."""
    service = service_or_404(account, pk)
    check_service_permission(request, Permission.UPDATE_SERVICE, service)
    rights = {"production": can_use_production(request)}
    if request.GET.get("part"):
        return render_picker_rows(request, UpdateServiceForm(service, request.GET, **rights))
    initial = {**initial_from_clone(request, account, "update_service"), **initial_from_query(request, "image")}
    form = UpdateServiceForm(service, request.POST or None, initial=initial, **rights)
    note_details(request, before={"image": service.image_id, "cluster": service.cluster_id})
    context = {"service": service, "open_operation": open_operation(service), "changes": _changes(form)}
    template, preview_template = "services/update_service.html", "services/_update_preview.html"
    return handle_operation_form(
        request, form, template, success_url=_service_url, context=context, preview_template=preview_template
    )


@requires(Permission.DELETE_SERVICE)
def delete_service(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    """Ask for confirmation; on POST, request the deletion."""
    service = service_or_404(account, pk)
    check_service_permission(request, Permission.DELETE_SERVICE, service)
    refusal = ""
    if request.method == "POST":
        try:
            operation = submit.delete_service(account, request.user.get_username(), service=service)
            before = {"image": str(service.image or ""), "cluster": str(service.cluster or "")}
            note_details(request, target=service, before=before, after={"operation": str(operation.pk)})
            return redirect("get_operation", account.name, operation.pk)
        except submit.RequestRefusedError as refused:
            refusal = refused.message
    page = {
        "service": service,
        "service_badge": events.badge_of(service),
        "refusal": refusal,
        "open_operation": open_operation(service),
        "recent": service.operations.all()[:5],
        "command": snippets.build_deletion_snippet(account, service.pk),
    }
    return render(request, "services/delete_service.html", page, status=INVALID_FORM_STATUS if refusal else 200)


def _service_url(operation: Operation) -> str:
    return reverse("get_service", args=[operation.account.name, operation.service_id])


def _changes(form: UpdateServiceForm) -> list[Change]:
    """Return the differences between the running and the picked image; none while no image is picked."""
    picked = form.pickers["image"].picked
    if not picked:
        return []
    return image_changes(form.service.image, Image.objects.select_related("manifest").get(pk=picked[0].pk))
