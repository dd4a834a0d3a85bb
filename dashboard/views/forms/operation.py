"""What can be done with an operation that exists: retry, clone and edit, cancel, decide, resume. And refresh."""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST

from dashboard.access import service_rules
from dashboard.access.guards import local_path, requires
from dashboard.access.permissions import Permission
from dashboard.audit.record import Result, note_details
from dashboard.http.request import Request
from deployments.mirror.refresh import request_refresh
from deployments.models import HostingAccount, Operation
from deployments.models.operation import Kind
from deployments.operations import submit


def operation_of(account: HostingAccount, pk: UUID) -> Operation:
    rows = Operation.objects.filter(account=account)
    related = ("account", "service__cluster", "model", "manifest", "image")
    return get_object_or_404(rows.select_related(*related).defer("service__cluster__kube_config"), pk=pk)


@require_POST
@requires(Permission.MANAGE_OPERATIONS)
def retry_operation(request: Request, account: HostingAccount, pk: UUID) -> HttpResponse:
    operation = operation_of(account, pk)
    return _act(request, operation, submit.retry)


@require_POST
@requires(Permission.MANAGE_OPERATIONS)
def cancel_operation(request: Request, account: HostingAccount, pk: UUID) -> HttpResponse:
    return _act(request, operation_of(account, pk), submit.cancel)


@require_POST
@requires(Permission.MANAGE_OPERATIONS)
def resume_operation(request: Request, account: HostingAccount, pk: UUID) -> HttpResponse:
    return _act(request, operation_of(account, pk), submit.resume)


@require_POST
@requires(Permission.MANAGE_OPERATIONS)
def settle_operation(request: Request, account: HostingAccount, pk: UUID) -> HttpResponse:
    send_again = request.POST.get("send_again") == "yes"
    return _act(request, operation_of(account, pk), submit.resolve, send_again=send_again)


@requires(Permission.MANAGE_OPERATIONS)
def clone_operation(request: Request, account: HostingAccount, pk: UUID) -> HttpResponse:
    """Lead to the form of the operation's kind, filled in as it was."""
    operation = operation_of(account, pk)
    args: list[Any] = [account.name]
    if operation.kind in {Kind.UPDATE_SERVICE, Kind.DELETE_SERVICE}:
        args.append(operation.service_id)
    return redirect(f"{reverse(operation.kind, args=args)}?clone={operation.pk}")


@require_POST
@requires(Permission.REFRESH, changes=False)
def refresh(request: Request, account: HostingAccount) -> HttpResponse:
    """Have a worker read the account's lists at the server again."""
    request_refresh(account)
    rests = account.not_before is not None and account.not_before > timezone.now()
    when = "will sync when the current wait is over" if rests else "is syncing"
    messages.info(request, f"The account {when}. Changes appear here automatically.")
    home = reverse("account_home", args=[account.name])
    return HttpResponseRedirect(local_path(request, request.POST.get("next", ""), home))


def _act(request: Request, operation: Operation, action: Any, **choice: Any) -> HttpResponse:
    """Do `action`, then show the operation it leads to; a refusal is shown on the page of the old one."""
    name = request.user.get_username()
    if why := service_rules.operation_denial_reason(request.access_level, name, operation):
        raise PermissionDenied(why)
    page = operation
    note_details(request, target=f"{operation} ({operation.pk})", after=choice)
    try:
        page = action(operation, name, **choice) or operation
    except submit.RequestRefusedError as refused:
        note_details(request, result=Result.REFUSED, after={"refused": refused.message})
        messages.error(request, refused.message)
    return redirect("get_operation", operation.account.name, page.pk)
