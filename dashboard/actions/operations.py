"""Actions on operations: look up, change, and describe for the audit log. Also adds assets."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.shortcuts import get_object_or_404

from dashboard.access import service_rules
from dashboard.audit.record import Result, note_details
from dashboard.forms.resources.asset import AddAssetForm
from dashboard.http.request import Request
from deployments.models import Asset, HostingAccount, Operation
from deployments.operations import submit

RELATED_ROWS = ("account", "service__cluster", "model", "manifest", "image")


def operation_or_404(account: HostingAccount, pk: UUID) -> Operation:
    """Return the operation with its related rows. Raise Http404 if the account has none with this id."""
    rows = Operation.objects.filter(account=account)
    return get_object_or_404(rows.select_related(*RELATED_ROWS).defer("service__cluster__kube_config"), pk=pk)


def act_on_operation(request: Request, operation: Operation, act: Callable[..., Operation], **choice: Any) -> Operation:
    """Call `act(operation, username, **choice)`, and return the operation to show: a retry creates a new one.

    Raise PermissionDenied if the user may not manage the operation, and submit.RequestRefusedError if its state
    doesn't allow `act`; the audit entry records the refusal.
    """
    name = request.user.get_username()
    if why := service_rules.operation_denial_reason(request.access_level, name, operation):
        raise PermissionDenied(why)
    note_details(request, target=f"{operation} ({operation.pk})", after=choice)
    try:
        return act(operation, name, **choice)
    except submit.RequestRefusedError as refused:
        note_details(request, result=Result.REFUSED, after={"refused": refused.message})
        raise


def note_operation(request: Request, operation: Operation) -> None:
    """Add a new operation to the audit entry: the form's values, with rows by id and without access keys."""
    after = {"operation": str(operation.pk), **submit.redact_keys(operation.body)}
    note_details(request, target=operation.resource, after=after)


def add_asset(request: Request, form: AddAssetForm) -> Asset:
    """Store and return the asset of a valid form, and add it to the audit entry."""
    asset = form.save(request.user.get_username())
    after = {"url": submit.redact_keys(asset.url), "mime_type": asset.mime_type, "unpack": asset.unpack}
    note_details(request, target=asset, after=after)
    return asset
