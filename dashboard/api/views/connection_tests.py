"""Connection tests with the stored settings of a server, registry or cluster."""

from collections.abc import Callable
from typing import Any

from django.http import HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404

from dashboard.access.permissions import Permission
from dashboard.actions import accounts, settings
from dashboard.api.guards import ApiRequest, View, requires
from dashboard.api.openapi.declare import declare
from dashboard.api.openapi.settings import ConnectionTest
from dashboard.api.parsing import check_fields, read_object
from dashboard.api.views.settings import CLUSTER, REGISTRY, SettingsResource
from deployments.accounts.connection_tests import ConnectionTestResult
from deployments.models import HostingAccount

TESTS: dict[str, Callable[[Any], ConnectionTestResult]] = {
    REGISTRY.name: settings.test_registry,
    CLUSTER.name: settings.test_cluster,
}


@requires(Permission.CHANGE_SERVER, changes=False)
@declare(ConnectionTest)
def test_server(request: ApiRequest, account: HostingAccount) -> HttpResponse:
    """Test the connection to the server with the stored settings."""
    return _run(request, "test_server", accounts.reload_account(account), settings.test_server)


def test_of(resource: SettingsResource) -> View:
    """Return the view that tests the connection to a registry or cluster."""

    @declare(ConnectionTest)
    def test_row(request: ApiRequest, account: HostingAccount, pk: int) -> HttpResponse:
        row = get_object_or_404(resource.model, account=account, pk=pk)
        return _run(request, f"test_{resource.name}", row, TESTS[resource.name])

    test_row.__doc__ = f"Test the connection to the {resource.name} with the stored settings."
    return requires(resource.permission, changes=False)(test_row)


def _run(request: ApiRequest, action: str, row: Any, test: Callable[[Any], ConnectionTestResult]) -> HttpResponse:
    check_fields(read_object(request), ())
    result = test(row)
    settings.record_connection_test(request, action, row, result, via="api")
    found: ConnectionTest = {"works": result.succeeded, "says": result.message, "advice": result.advice}
    return JsonResponse(found)
