"""Connection tests of what is stored, as the buttons of the settings do them."""

from collections.abc import Callable
from typing import Any

from django.http import HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404

from dashboard.access.permissions import Permission
from dashboard.api.guards import ApiRequest, View, requires
from dashboard.api.openapi.declare import declare
from dashboard.api.openapi.settings import ConnectionTest
from dashboard.api.parsing import only, read_object
from dashboard.api.views.settings import CLUSTER, REGISTRY, Place
from dashboard.views.settings import clusters, registries, server
from dashboard.views.settings.pages import record_trial
from deployments.accounts.connection_tests import ConnectionTestResult, with_timeout
from deployments.accounts.connection_tests.server import try_server
from deployments.models import HostingAccount

ATTEMPTS: dict[str, Callable[[Any], ConnectionTestResult]] = {
    REGISTRY.name: registries.attempt,
    CLUSTER.name: clusters.attempt,
}


@requires(Permission.CHANGE_SERVER, changes=False)
@declare(ConnectionTest)
def test_server(request: ApiRequest, account: HostingAccount) -> HttpResponse:
    """Test the connection to the server with the stored settings."""
    return _answer(request, "test_server", server.fresh(account), try_server)


def test_of(place: Place) -> View:
    @declare(ConnectionTest)
    def test_row(request: ApiRequest, account: HostingAccount, pk: int) -> HttpResponse:
        row = get_object_or_404(place.cls, account=account, pk=pk)
        return _answer(request, f"test_{place.name}", row, ATTEMPTS[place.name])

    test_row.__doc__ = f"Test the connection to the {place.name} with the stored settings."
    return requires(place.permission, changes=False)(test_row)


def _answer(request: ApiRequest, action: str, row: Any, attempt: Callable[[Any], ConnectionTestResult]) -> HttpResponse:
    only(read_object(request), ())
    trial = with_timeout(lambda: attempt(row))
    record_trial(request, action, row, trial, via="api")
    found: ConnectionTest = {"works": trial.succeeded, "says": trial.message, "advice": trial.advice}
    return JsonResponse(found)
