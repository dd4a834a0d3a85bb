"""Routes that request operations and act on them, add assets, and refresh. They use the forms of the pages."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.http import HttpResponse, JsonResponse
from django.urls import reverse

from dashboard.access.permissions import Permission
from dashboard.actions import operations
from dashboard.actions.services import can_use_production, check_service_permission, services_without_secrets
from dashboard.api.errors import ApiError, invalid_field, invalid_form
from dashboard.api.guards import ApiRequest, View, enter, requires
from dashboard.api.idempotency import submit_once
from dashboard.api.openapi import resources
from dashboard.api.openapi.bodies import ADD_ASSET, OPERATIONS, SETTLE
from dashboard.api.openapi.declare import LOCATION, Body, declare
from dashboard.api.parsing import MAX_INTEGER, check_fields, form_data, read_object
from dashboard.api.views.resources import serialize_one
from dashboard.audit.record import note_details
from dashboard.forms.resources.asset import AddAssetForm
from dashboard.forms.resources.image import CreateImageForm
from dashboard.forms.resources.manifest import CreateManifestForm
from dashboard.forms.resources.model import RegisterModelForm
from dashboard.forms.resources.operation import OperationForm
from dashboard.forms.resources.service import CreateServiceForm, UpdateServiceForm
from deployments.mirror.refresh import request_refresh
from deployments.models import HostingAccount, Operation, Service
from deployments.models.operation import Kind
from deployments.operations import submit

FORMS: dict[str, type[OperationForm]] = {
    form.kind: form for form in (RegisterModelForm, CreateManifestForm, CreateImageForm)
}


@requires(Permission.SEE, changes=False)
@declare(
    resources.OperationDetail,
    status=202,
    repeat=200,
    bodies=OPERATIONS,
    headers=LOCATION,
    conflicts=True,
    operation_id="create_operation",
    permission=Permission.CREATE_IMAGE,
)
def create_operation(request: ApiRequest, account: HostingAccount) -> HttpResponse:
    """Request an operation. Send its kind and the fields of its form."""
    body = read_object(request)
    kind = body.pop("kind", None)
    if kind not in Kind.values:
        raise invalid_field("kind", f"Give one of {', '.join(Kind.values)}.")
    note_details(request, action=kind)

    def act(row: HostingAccount) -> HttpResponse:
        operation, repeated = submit_once(request, row, lambda: _submit(request, row, kind, body))
        if repeated:
            note_details(request, target=f"{operation} ({operation.pk}), requested again")
        else:
            operations.note_operation(request, operation)
        return _operation_response(operation, 200 if repeated else 202)

    return enter(request, account.name, Permission(kind), act)


def _submit(request: ApiRequest, account: HostingAccount, kind: str, body: dict[str, Any]) -> Operation:
    """Request an operation with the form of its kind. If it is refused, raise ApiError without storing anything."""
    by = request.user.get_username()
    rights: dict[str, Any] = {"production": can_use_production(request)}
    if kind == Kind.CREATE_SERVICE:
        fields = CreateServiceForm(account, **rights).fields
        return _submit_form(CreateServiceForm(account, form_data(fields, body), **rights), by)
    if kind in FORMS:
        return _submit_form(FORMS[kind](account, form_data(FORMS[kind](account).fields, body)), by)
    service = _service_in(account, body)
    check_service_permission(request, Permission(kind), service)
    if kind == Kind.UPDATE_SERVICE:
        note_details(request, before={"image": service.image_id, "cluster": service.cluster_id})
        fields = UpdateServiceForm(service, **rights).fields
        return _submit_form(UpdateServiceForm(service, form_data(fields, body), **rights), by)
    check_fields(body, ())
    note_details(request, before={"image": str(service.image or ""), "cluster": str(service.cluster or "")})
    try:
        return submit.delete_service(account, by, service=service)
    except submit.RequestRefusedError as refused:
        raise ApiError(409, refused.message) from None


def _submit_form(form: OperationForm, by: str) -> Operation:
    """Return the operation that the form requests. Raise ApiError if the form is invalid or refused."""
    operation = form.submit(by) if form.is_valid() else None
    if operation is None:
        raise invalid_form(form)
    return operation


def _service_in(account: HostingAccount, body: dict[str, Any]) -> Service:
    """Return the service that the body identifies by id or name, and remove it from the body."""
    value = body.pop("service", None)
    rows = services_without_secrets(account)
    service = None
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_INTEGER:
        service = rows.filter(pk=value).first()
    elif isinstance(value, str) and "\0" not in value:
        service = rows.filter(name=value, vanished_at=None).first()
    if service is None:
        raise invalid_field("service", "Use the ID or the name of a service in this account.")
    return service


def _action(act: Callable[..., Operation], description: str, body: Body | None = None) -> View:
    """Return the view that calls `act` for an operation. `body`: further arguments, each true or false."""
    fields, bodies = (list(body.fields()), (body,)) if body else ([], ())

    @declare(resources.OperationDetail, status=202, bodies=bodies, headers=LOCATION, conflicts=True)
    def act_on(request: ApiRequest, account: HostingAccount, pk: UUID) -> HttpResponse:
        operation, arguments = operations.operation_or_404(account, pk), read_object(request)
        check_fields(arguments, fields)
        for name in fields:
            if not isinstance(arguments.get(name), bool):
                raise invalid_field(name, "Use true or false.")
        try:
            done = operations.act_on_operation(request, operation, act, **arguments)
        except submit.RequestRefusedError as refused:
            raise ApiError(409, refused.message) from None
        return _operation_response(done, 202)

    act_on.__doc__ = description
    return requires(Permission.MANAGE_OPERATIONS)(act_on)


retry_operation = _action(submit.retry, "Request the same operation again. Returns the new operation.")
cancel_operation = _action(submit.cancel, "Cancel an operation, if that is still possible.")
resume_operation = _action(submit.resume, "Ask the server again about an operation that timed out.")
settle_operation = _action(
    submit.resolve,
    "Decide about an operation whose outcome is unknown. Send the request again, or mark it as failed.",
    SETTLE,
)


@requires(Permission.ADD_ASSET, action="add_asset")
@declare(resources.Asset, status=201, bodies=(ADD_ASSET,), headers=LOCATION, conflicts=True)
def add_asset(request: ApiRequest, account: HostingAccount) -> HttpResponse:
    """Add an asset from an upload or an address."""
    form = AddAssetForm(account, form_data(AddAssetForm(account).fields, read_object(request)))
    if not form.is_valid():
        raise invalid_form(form)
    asset = operations.add_asset(request, form)
    response = JsonResponse(serialize_one("asset", account, asset.pk), status=201)
    response.headers["Location"] = reverse("v1_get_asset", args=[account.name, asset.pk])
    return response


@requires(Permission.REFRESH, changes=False)
@declare(resources.RefreshRequested, status=202)
def refresh(request: ApiRequest, account: HostingAccount) -> HttpResponse:
    """Refresh the account's lists from the server. Responds before the refresh is done."""
    check_fields(read_object(request), ())
    request_refresh(account)
    confirmed: resources.RefreshRequested = {"refresh": "asked"}
    return JsonResponse(confirmed, status=202)


def _operation_response(operation: Operation, status: int) -> HttpResponse:
    response = JsonResponse(serialize_one("operation", operation.account, operation.pk), status=status)
    response.headers["Location"] = reverse("v1_get_operation", args=[operation.account.name, operation.pk])
    return response
