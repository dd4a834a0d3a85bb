"""Pages of registries: list, add, change, test, delete."""

from typing import Any

from django.contrib import messages
from django.db.models import BooleanField, Count, ExpressionWrapper, Q
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.debug import sensitive_post_parameters, sensitive_variables
from django.views.decorators.http import require_POST, require_safe

from dashboard.access.guards import requires
from dashboard.access.permissions import Permission
from dashboard.actions import settings
from dashboard.forms.settings.registry import RegistryForm
from dashboard.http.request import Request
from dashboard.views.forms.submit import INVALID_FORM_STATUS
from dashboard.views.settings.pages import handle_settings_form, render_connection_test
from deployments.accounts import usage
from deployments.models import HostingAccount, RegistryInfo

TEMPLATE = "settings/change_registry.html"


@require_safe
@requires(Permission.CHANGE_REGISTRY)
def list_registries(request: Request, account: HostingAccount) -> HttpResponse:
    """List the registries of the account, each with the number of images pushed to it."""
    present = Count("images", Q(images__vanished_at=None))
    has_password = ExpressionWrapper(Q(password__isnull=False), BooleanField())
    rows = RegistryInfo.objects.filter(account=account).defer(*RegistryInfo.SECRETS)
    rows = rows.annotate(uses=present).annotate(has_secret=has_password)
    return render(request, "settings/list_registries.html", {"rows": rows})


@sensitive_post_parameters()
@requires(Permission.CHANGE_REGISTRY)
def add_registry(request: Request, account: HostingAccount) -> HttpResponse:
    """Show the form; on POST, add the registry."""
    form = RegistryForm(request.POST or None, instance=RegistryInfo(account=account))
    return handle_settings_form(request, form, TEMPLATE, success_url_name="list_registries")


@sensitive_post_parameters()
@requires(Permission.CHANGE_REGISTRY)
def change_registry(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    """Show the form; on POST, change the registry."""
    row = get_object_or_404(RegistryInfo, account=account, pk=pk)
    form = RegistryForm(request.POST or None, instance=row)
    return handle_settings_form(request, form, TEMPLATE, success_url_name="list_registries", context=_page(row))


@require_POST
@sensitive_post_parameters()
@requires(Permission.CHANGE_REGISTRY, changes=False)
@sensitive_variables("form", "row")
def test_registry(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    """Test the submitted settings, with the stored password unless another one was entered. `pk` 0: a new registry."""
    row = get_object_or_404(RegistryInfo, account=account, pk=pk) if pk else RegistryInfo(account=account)
    page = _page(row) if pk else {}
    form = RegistryForm(request.POST, instance=row)
    result = settings.test_registry(form.instance) if form.is_valid() else None
    return render_connection_test(request, form, result, TEMPLATE, page)


@requires(Permission.CHANGE_REGISTRY)
def delete_registry(request: Request, account: HostingAccount, pk: int) -> HttpResponse:
    """Ask for confirmation; on POST, delete the registry from the dashboard."""
    row = get_object_or_404(RegistryInfo.objects.defer(*RegistryInfo.SECRETS), account=account, pk=pk)
    under_way = usage.operations_with_registry(row)
    if request.method == "POST" and settings.delete_registry(request, row):
        messages.success(request, f"Deleted the registry “{row.name}” from the dashboard. Its contents stay.")
        return redirect("list_registries", account.name)
    page = {
        "row": row,
        "images": list(row.images.filter(vanished_at=None)[:5]),
        "count": row.images.filter(vanished_at=None).count(),
        "under_way": list(under_way[:5]),
    }
    return render(
        request, "settings/delete_registry.html", page, status=INVALID_FORM_STATUS if request.method == "POST" else 200
    )


def _page(row: RegistryInfo) -> dict[str, Any]:
    return {"row": row, "name": row.name, "under_way": list(usage.operations_with_registry(row)[:5])}
