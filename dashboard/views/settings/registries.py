"""The registries of an account: list, add, change, try, delete."""

from typing import Any

from django.contrib import messages
from django.db.models import BooleanField, Count, ExpressionWrapper, Q
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_POST, require_safe

from dashboard.access.guards import requires
from dashboard.access.permissions import Permission
from dashboard.audit.record import note_details
from dashboard.forms.settings.registry import RegistryForm
from dashboard.http.request import Request
from dashboard.views.forms.submit import INVALID
from dashboard.views.settings.pages import show_trial, write_settings
from deployments.accounts import usage
from deployments.accounts.connection_tests import ConnectionTestResult, with_timeout
from deployments.accounts.connection_tests.registry import try_registry
from deployments.models import HostingAccount, RegistryInfo

TEMPLATE = "settings/change_registry.html"


@require_safe
@requires(Permission.CHANGE_REGISTRY)
def list_registries(request: Request, account: HostingAccount) -> HttpResponse:
    there = Count("images", Q(images__vanished_at=None))
    kept = ExpressionWrapper(Q(password__isnull=False), BooleanField())
    rows = RegistryInfo.objects.filter(account=account).defer(*RegistryInfo.SECRETS)
    rows = rows.annotate(uses=there).annotate(kept=kept)
    return render(request, "settings/list_registries.html", {"rows": rows})


@sensitive_post_parameters()
@requires(Permission.CHANGE_REGISTRY)
def add_registry(request: Request, account: HostingAccount) -> HttpResponse:
    form = RegistryForm(request.POST or None, instance=RegistryInfo(account=account))
    return write_settings(request, form, TEMPLATE, done="list_registries")


@sensitive_post_parameters()
@requires(Permission.CHANGE_REGISTRY)
def change_registry(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    row = get_object_or_404(RegistryInfo, account=account, pk=pk)
    form = RegistryForm(request.POST or None, instance=row)
    return write_settings(request, form, TEMPLATE, done="list_registries", context=_page(row))


@require_POST
@sensitive_post_parameters()
@requires(Permission.CHANGE_REGISTRY, changes=False)
@sensitive_variables("form", "row")
def test_registry(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    """Try what is typed, with the password that is kept where none is typed. `pk` 0: it is not stored yet."""
    row = get_object_or_404(RegistryInfo, account=account, pk=pk) if pk else RegistryInfo(account=account)
    page = _page(row) if pk else {}
    form = RegistryForm(request.POST, instance=row)
    trial = with_timeout(lambda: attempt(form.instance)) if form.is_valid() else None
    return show_trial(request, form, trial, TEMPLATE, page)


def attempt(row: RegistryInfo) -> ConnectionTestResult:
    """What comes of signing in at the registry."""
    return try_registry(row.location, row.user, row.password or "")


@requires(Permission.CHANGE_REGISTRY)
def delete_registry(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    row = get_object_or_404(RegistryInfo.objects.defer(*RegistryInfo.SECRETS), account=account, pk=pk)
    under_way = usage.operations_with_registry(row)
    if request.method == "POST" and delete(request, row):
        messages.success(request, f"Deleted the registry “{row.name}” from the dashboard. Its contents stay.")
        return redirect("list_registries", account.name)
    page = {
        "row": row,
        "images": list(row.images.filter(vanished_at=None)[:5]),
        "count": row.images.filter(vanished_at=None).count(),
        "under_way": list(under_way[:5]),
    }
    return render(request, "settings/delete_registry.html", page, status=INVALID if request.method == "POST" else 200)


def delete(request: Request, row: RegistryInfo) -> bool:
    """Forget it here, unless an open operation uses it; whether that was done."""
    if usage.operations_with_registry(row).exists():
        return False
    note_details(request, target=row.name, before={"location": row.location, "user": row.user})
    row.delete()
    return True


def _page(row: RegistryInfo) -> dict[str, Any]:
    return {"row": row, "name": row.name, "under_way": list(usage.operations_with_registry(row)[:5])}
