"""Create, update and delete services."""

from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse

from dashboard.access import service_rules
from dashboard.access.guards import requires
from dashboard.access.permissions import Permission
from dashboard.audit.record import note_details
from dashboard.forms import snippets
from dashboard.forms.resources.changes import changes
from dashboard.forms.resources.service import CreateServiceForm, UpdateServiceForm
from dashboard.http.request import Request
from dashboard.views.forms.submit import INVALID, chosen_in_link, cloned, picker_rows, write
from deployments.live import events
from deployments.models import HostingAccount, Image, Operation, Service
from deployments.models.operation import OPEN
from deployments.operations import submit

SECRETS = ("scoring_key", "account__token", "account__client_secret", "cluster__kube_config")


def service_of(account: HostingAccount, pk: int) -> Service:
    """The service with its image and manifest, or 404. Its key stays in the database."""
    rows = Service.objects.filter(account=account).select_related("account", "image__manifest", "cluster")
    return get_object_or_404(rows.defer(*SECRETS), pk=pk)


def open_operation(service: Service) -> Operation | None:
    """What is being done to the service now; one at a time."""
    return service.operations.filter(state__in=OPEN).first()


def require(request: Request, permission: Permission, service: Service) -> None:
    """Raise PermissionDenied unless the reader may do that to this very service."""
    if why := service_rules.denial_reason(request.access_level, request.user.get_username(), permission, service):
        raise PermissionDenied(why)


@requires(Permission.CREATE_SERVICE, previews=True)
def create_service(request: Request, account: HostingAccount) -> HttpResponse:
    rights = {"production": service_rules.can_act_in_production(request.access_level)}
    if request.GET.get("part"):
        return picker_rows(request, CreateServiceForm(account, request.GET, **rights))
    initial = {**cloned(request, account, "create_service"), **chosen_in_link(request, "image")}
    form = CreateServiceForm(account, request.POST or None, initial=initial, **rights)
    return write(request, form, "services/create_service.html", done=_to_service)


@requires(Permission.UPDATE_SERVICE, previews=True)
def update_service(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    service = service_of(account, pk)
    require(request, Permission.UPDATE_SERVICE, service)
    rights = {"production": service_rules.can_act_in_production(request.access_level)}
    if request.GET.get("part"):
        return picker_rows(request, UpdateServiceForm(service, request.GET, **rights))
    initial = {**cloned(request, account, "update_service"), **chosen_in_link(request, "image")}
    form = UpdateServiceForm(service, request.POST or None, initial=initial, **rights)
    note_details(request, before={"image": service.image_id, "cluster": service.cluster_id})
    page = {"service": service, "open_operation": open_operation(service), "changes": _changes(form)}
    template, panel = "services/update_service.html", "services/_update_preview.html"
    return write(request, form, template, done=_to_service, context=page, panel=panel)


@requires(Permission.DELETE_SERVICE)
def delete_service(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    service = service_of(account, pk)
    require(request, Permission.DELETE_SERVICE, service)
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
        "command": snippets.of_deletion(account, service.pk),
    }
    return render(request, "services/delete_service.html", page, status=INVALID if refusal else 200)


def _to_service(operation: Operation) -> str:
    return reverse("get_service", args=[operation.account.name, operation.service_id])


def _changes(form: UpdateServiceForm) -> list:
    """What the picked image would change; empty while none is picked."""
    picked = form.pickers["image"].picked
    if not picked:
        return []
    return changes(form.service.image, Image.objects.select_related("manifest").get(pk=picked[0].pk))
