"""POST: ask for an operation, or do something about one; by the same forms and functions as the pages."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.http import HttpResponse, JsonResponse
from django.urls import reverse

from dashboard.access import service_rules
from dashboard.access.permissions import Permission
from dashboard.api.errors import Problem, of_form, wrong
from dashboard.api.guards import ApiRequest, View, enter, requires
from dashboard.api.idempotency import once
from dashboard.api.openapi import resources
from dashboard.api.openapi.bodies import ADD_ASSET, OPERATIONS, SETTLE
from dashboard.api.openapi.declare import LOCATION, Body, declare
from dashboard.api.parsing import form_data, only, read_object
from dashboard.api.views.resources import show_one
from dashboard.audit.record import Result, note_details
from dashboard.forms.resources.asset import AddAssetForm
from dashboard.forms.resources.image import CreateImageForm
from dashboard.forms.resources.manifest import CreateManifestForm
from dashboard.forms.resources.model import RegisterModelForm
from dashboard.forms.resources.operation import OperationForm
from dashboard.forms.resources.service import CreateServiceForm, UpdateServiceForm
from dashboard.views.forms import asset as asset_forms
from dashboard.views.forms.operation import operation_of
from dashboard.views.forms.service import SECRETS, require
from dashboard.views.forms.submit import note_operation
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
        raise wrong("kind", f"Give one of {', '.join(Kind.values)}.")
    note_details(request, action=kind)

    def act(found: HostingAccount) -> HttpResponse:
        operation, repeated = once(request, found, lambda: _submit(request, found, kind, body))
        if repeated:
            note_details(request, target=f"{operation} ({operation.pk}), requested again")
        else:
            note_operation(request, operation)
        return _answer(operation, 200 if repeated else 202)

    return enter(request, account.name, Permission(kind), act)


def _submit(request: ApiRequest, account: HostingAccount, kind: str, body: dict[str, Any]) -> Operation:
    """Raises Problem: then nothing is stored."""
    by = request.user.get_username()
    rights: dict[str, Any] = {"production": service_rules.can_act_in_production(request.access_level)}
    if kind == Kind.CREATE_SERVICE:
        fields = CreateServiceForm(account, **rights).fields
        return _sent(CreateServiceForm(account, form_data(fields, body), **rights), by)
    if kind in FORMS:
        return _sent(FORMS[kind](account, form_data(FORMS[kind](account).fields, body)), by)
    service = _service(account, body)
    require(request, Permission(kind), service)
    if kind == Kind.UPDATE_SERVICE:
        note_details(request, before={"image": service.image_id, "cluster": service.cluster_id})
        fields = UpdateServiceForm(service, **rights).fields
        return _sent(UpdateServiceForm(service, form_data(fields, body), **rights), by)
    only(body, ())
    note_details(request, before={"image": str(service.image or ""), "cluster": str(service.cluster or "")})
    try:
        return submit.delete_service(account, by, service=service)
    except submit.RequestRefusedError as refused:
        raise Problem(409, refused.message) from None


def _sent(form: OperationForm, by: str) -> Operation:
    operation = form.submit(by) if form.is_valid() else None
    if operation is None:
        raise of_form(form)
    return operation


def _service(account: HostingAccount, body: dict[str, Any]) -> Service:
    """The service that the body names, by id or by name."""
    given = body.pop("service", None)
    rows = Service.objects.filter(account=account).select_related("account", "image__manifest", "cluster")
    rows = rows.defer(*SECRETS)
    found = None
    if isinstance(given, int) and not isinstance(given, bool) and 0 < given < 2**63:
        found = rows.filter(pk=given).first()
    elif isinstance(given, str) and "\0" not in given:
        found = rows.filter(name=given, vanished_at=None).first()
    if found is None:
        raise wrong("service", "Use the ID or the name of a service in this account.")
    return found


def _action(act: Callable[..., Operation], what: str, body: Body | None = None) -> View:
    """A view that does `act` with an operation; `body`: its fields, each true or false."""
    fields, bodies = (list(body.fields()), (body,)) if body else ([], ())

    @declare(resources.OperationDetail, status=202, bodies=bodies, headers=LOCATION, conflicts=True)
    def do(request: ApiRequest, account: HostingAccount, pk: UUID) -> HttpResponse:
        operation, sent = operation_of(account, pk), read_object(request)
        only(sent, fields)
        for name in fields:
            if not isinstance(sent.get(name), bool):
                raise wrong(name, "Use true or false.")
        if why := service_rules.operation_denial_reason(request.access_level, request.user.get_username(), operation):
            raise PermissionDenied(why)
        note_details(request, target=f"{operation} ({operation.pk})", after=sent)
        try:
            done = act(operation, request.user.get_username(), **sent)
        except submit.RequestRefusedError as refused:
            note_details(request, result=Result.REFUSED, after={"refused": refused.message})
            raise Problem(409, refused.message) from None
        return _answer(done or operation, 202)

    do.__doc__ = what
    return requires(Permission.MANAGE_OPERATIONS)(do)


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
        raise of_form(form)
    asset = asset_forms.add(request, form)
    answer = JsonResponse(show_one("asset", account, asset.pk), status=201)
    answer.headers["Location"] = reverse("v1_get_asset", args=[account.name, asset.pk])
    return answer


@requires(Permission.REFRESH, changes=False)
@declare(resources.RefreshRequested, status=202)
def refresh(request: ApiRequest, account: HostingAccount) -> HttpResponse:
    """Refresh the account's lists from the server. Responds before the refresh is done."""
    only(read_object(request), ())
    request_refresh(account)
    confirmed: resources.RefreshRequested = {"refresh": "asked"}
    return JsonResponse(confirmed, status=202)


def _answer(operation: Operation, status: int) -> HttpResponse:
    answer = JsonResponse(show_one("operation", operation.account, operation.pk), status=status)
    answer.headers["Location"] = reverse("v1_get_operation", args=[operation.account.name, operation.pk])
    return answer
