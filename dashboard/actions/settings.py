"""Settings of an account that contain a secret (server, registries, clusters): store, test and delete."""

from collections.abc import Callable
from typing import Any

from django.db import transaction

from dashboard.audit.record import note_details, record_entry
from dashboard.forms.fields.secret import SettingsForm
from dashboard.http.request import Request, client_ip
from deployments.accounts import kubeconfig, usage
from deployments.accounts.connection_tests import ConnectionTestResult, with_timeout
from deployments.accounts.connection_tests.cluster import try_cluster
from deployments.accounts.connection_tests.registry import try_registry
from deployments.accounts.connection_tests.server import try_server
from deployments.accounts.known_secrets import known_secrets
from deployments.live import events
from deployments.models import Cluster, HostingAccount, RegistryInfo
from encryption.fields import UndecryptableError
from netguard.redaction import credentials_in_kubeconfig

ADDRESS_FIELDS = ("base_url", "subscription", "resource_group", "hosting_account", "api_version")


def save_settings(request: Request, form: SettingsForm) -> Any:
    """Store and return the row of a valid form; open pages of the account are notified."""
    before, after = form.changes()
    row: Any = form.save_by(request.user.get_username())
    account = getattr(row, "account", row)
    note_details(request, target=row, before=before, after=after)
    transaction.on_commit(lambda: events.publish_account(account.pk), robust=True)
    return row


def test_server(row: HostingAccount) -> ConnectionTestResult:
    """Test the connection to the server of an account, which may be unsaved.

    If the saved settings work, calls to the server resume: a rejected token may have become valid.
    """
    known = known_secrets(row)
    result = _test(lambda: with_timeout(lambda: try_server(row, known), known.all))
    if result.succeeded and row.pk is not None:
        _lift_block(row)
    return result


def _lift_block(tested: HostingAccount) -> None:
    """Clear the recorded failure of the account if its saved settings are the tested ones."""
    account = HostingAccount.objects.get(pk=tested.pk)
    is_saved = account.credentials == tested.credentials and all(
        getattr(account, name) == getattr(tested, name) for name in ADDRESS_FIELDS
    )
    if account.is_failing and is_saved:
        account.clear_failure()
        account.save(update_fields=HostingAccount.FAILURE_FIELDS)
        events.publish_account(account.pk)


def test_registry(row: RegistryInfo) -> ConnectionTestResult:
    """Test signing in to a registry, which may be unsaved."""

    def test() -> ConnectionTestResult:
        password = row.password or ""
        redactor = known_secrets(row.account).all.including([password])
        return with_timeout(lambda: try_registry(row.location, row.user, password), redactor)

    return _test(test)


def test_cluster(row: Cluster) -> ConnectionTestResult:
    """Test the connection to a cluster, which may be unsaved, by requesting its version."""

    text = ""

    def attempt() -> ConnectionTestResult:
        try:
            return try_cluster(kubeconfig.parse(text))
        except kubeconfig.InvalidKubeconfigError as error:
            return ConnectionTestResult(False, f"The saved kubeconfig isn’t valid: {error}", "Paste another one.")

    def test() -> ConnectionTestResult:
        nonlocal text
        text = row.kube_config or ""
        redactor = known_secrets(row.account).all.including(credentials_in_kubeconfig(text))
        return with_timeout(attempt, redactor)

    return _test(test)


def _test(test: Callable[[], ConnectionTestResult]) -> ConnectionTestResult:
    """Return the result of the test. If the saved secret can't be decrypted, nothing is sent."""
    try:
        return test()
    except UndecryptableError as error:
        return ConnectionTestResult(False, str(error), "Restore the site’s secret key, or enter the value again.")


def record_connection_test(
    request: Request, action: str, row: Any, result: ConnectionTestResult, via: str = "page"
) -> None:
    """Write an audit entry about a connection test. A test changes nothing, but it sends a secret."""
    account = request.account
    record_entry(
        action,
        actor=request.user.get_username(),
        account_id=account.pk,
        account_name=account.name,
        target=str(row),
        address=client_ip(request),
        after={"works": result.succeeded, "says": result.message},
        via=via,
    )


def delete_registry(request: Request, row: RegistryInfo) -> bool:
    """Delete a registry from the dashboard. Return False if an open operation uses it."""
    if usage.operations_with_registry(row).exists():
        return False
    note_details(request, target=row.name, before={"location": row.location, "user": row.user})
    row.delete()
    return True


def delete_cluster(request: Request, row: Cluster) -> bool:
    """Delete a cluster from the dashboard. Return False if an open operation uses it."""
    if usage.operations_with_cluster(row).exists():
        return False
    note_details(request, target=row.name, before={"production": row.production})
    row.delete()
    return True
