"""Actions on an existing operation (retry, clone and edit, cancel, resolve, resume), and refresh."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST

from dashboard.access.guards import local_path, requires
from dashboard.access.permissions import Permission
from dashboard.actions.operations import act_on_operation, operation_or_404
from dashboard.http.request import Request
from deployments.mirror.refresh import request_refresh
from deployments.models import HostingAccount, Operation
from deployments.models.operation import Kind
from deployments.operations import submit


@require_POST
@requires(Permission.MANAGE_OPERATIONS)
def retry_operation(request: Request, account: HostingAccount, pk: UUID) -> HttpResponse:
    """Request the same operation again, and redirect to the new one."""
    return _act(request, account, pk, submit.retry)


@require_POST
@requires(Permission.MANAGE_OPERATIONS)
def cancel_operation(request: Request, account: HostingAccount, pk: UUID) -> HttpResponse:
    """Cancel an operation, if that is still possible."""
    return _act(request, account, pk, submit.cancel)


@require_POST
@requires(Permission.MANAGE_OPERATIONS)
def resume_operation(request: Request, account: HostingAccount, pk: UUID) -> HttpResponse:
    """Ask the server again about an operation that timed out."""
    return _act(request, account, pk, submit.resume)


@require_POST
@requires(Permission.MANAGE_OPERATIONS)
def settle_operation(request: Request, account: HostingAccount, pk: UUID) -> HttpResponse:
    """Resolve an operation whose outcome is unknown: send the request again, or mark it as failed."""
    send_again = request.POST.get("send_again") == "yes"
    return _act(request, account, pk, submit.resolve, send_again=send_again)


@requires(Permission.MANAGE_OPERATIONS)
def clone_operation(request: Request, account: HostingAccount, pk: UUID) -> HttpResponse:
    """Redirect to the form of the operation's kind, filled in with its request."""
    operation = operation_or_404(account, pk)
    args: list[Any] = [account.name]
    if operation.kind in {Kind.UPDATE_SERVICE, Kind.DELETE_SERVICE}:
        args.append(operation.service_id)
    return redirect(f"{reverse(operation.kind, args=args)}?clone={operation.pk}")


@require_POST
@requires(Permission.REFRESH, changes=False)
def refresh(request: Request, account: HostingAccount) -> HttpResponse:
    """Ask a worker to refresh the account's lists from the server."""
    request_refresh(account)
    is_paused = account.not_before is not None and account.not_before > timezone.now()
    when = "will sync when the current wait is over" if is_paused else "is syncing"
    messages.info(request, f"The account {when}. Changes appear here automatically.")
    home = reverse("account_home", args=[account.name])
    return HttpResponseRedirect(local_path(request, request.POST.get("next", ""), home))


def _act(
    request: Request, account: HostingAccount, pk: UUID, act: Callable[..., Operation], **choice: Any
) -> HttpResponse:
    """Call `act`, and redirect to the operation that it returns; on a refusal, to the old one with the reason."""
    operation = operation_or_404(account, pk)
    try:
        operation = act_on_operation(request, operation, act, **choice)
    except submit.RequestRefusedError as refused:
        messages.error(request, refused.message)
    return redirect("get_operation", account.name, operation.pk)
