"""Connection tests: each misconfiguration gets a message and advice."""

import base64
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from deployments.accounts import connection_tests, kubeconfig
from deployments.accounts.connection_tests import ConnectionTestResult, with_timeout
from deployments.accounts.connection_tests.cluster import try_cluster
from deployments.accounts.connection_tests.registry import try_registry
from deployments.accounts.connection_tests.server import try_server
from deployments.client.transport import KnownSecrets
from deployments.models import HostingAccount
from netguard.redaction import Redactor
from tests.doubles import mms as faults
from tests.doubles.authority import CLIENT_ID, SCOPE, SECRET, TENANT, Authority
from tests.doubles.kubernetes import Issuer, Kubernetes
from tests.doubles.mms import MMS
from tests.doubles.registry import PASSWORD, USER, RegistryDouble, running_registry
from tests.support.clock import quiet_seconds
from tests.support.spellings import spellings


def account(url: str, **more: Any) -> HostingAccount:
    place = {"subscription": "s", "resource_group": "g", "hosting_account": "a", "token": MMS.token}
    return HostingAccount(name="team", base_url=url, **{**place, **more})


def told(trial: ConnectionTestResult) -> str:
    return f"{trial.message} {trial.advice}"


# --- servers ------------------------------------------------------------------------------------------------------


def test_a_working_server_reports_its_resources(mms: MMS) -> None:
    mms.add_service("iris")
    trial = try_server(account(mms.url), KnownSecrets())
    assert trial.succeeded
    assert "lists 1 service." in trial.message


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (faults.status(401), "Get a new one from the person who runs the server"),
        (faults.status(403), "doesn't let it read this hosting account"),
        (faults.status(404), "subscription, resource group, hosting account"),
        (faults.status(302, None, Location="http://elsewhere.example/"), "elsewhere.example.*Use the address"),
        (faults.html(200), "isn't an MMS"),
        (faults.html(502), "The server, or a proxy in front of it, failed"),
        (faults.garbage, "isn't an MMS"),
        (faults.drop, "firewall|that the program is running"),
        (faults.status(429), "Try again later"),
        (faults.status(400), "API version"),
    ],
)
def test_each_server_failure_is_reported(mms: MMS, fault: Any, words: str) -> None:
    mms.plan("GET", "services", fault)
    trial = try_server(account(mms.url), KnownSecrets())
    assert not trial.succeeded
    assert re.search(words, told(trial), re.DOTALL), told(trial)
    assert MMS.token not in told(trial)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://no-such-host.invalid", "host name is unknown. Check “Base URL” for a typo"),
        ("http://127.0.0.1:1", "Nothing is listening there"),
        ("http://169.254.169.254", "never called"),
    ],
)
def test_an_unreachable_server_is_reported(url: str, words: str) -> None:
    trial = try_server(account(url), KnownSecrets())
    assert not trial.succeeded
    assert words in told(trial)


def test_a_server_without_tls_called_with_https_is_reported(mms: MMS) -> None:
    assert "Check whether the address should start with http://." in told(
        try_server(account(mms.url.replace("http", "https")), KnownSecrets())
    )


def test_an_untrusted_certificate_is_reported() -> None:
    with Kubernetes() as other:
        trial = try_server(account(other.url), KnownSecrets())
    assert "This site doesn't trust its certificate" in told(trial)


def test_a_server_that_hangs_costs_seconds(mms: MMS, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.accounts.connection_tests.server.CALL_SECONDS", 0.3)
    mms.plan("GET", "services", faults.hang(3))
    trial = try_server(account(mms.url), KnownSecrets())
    assert "overloaded" in told(trial)


def test_an_entra_id_account_is_tested_with_a_new_token(mms: MMS) -> None:
    entra = {"sign_in": "entra", "tenant": TENANT, "client_id": CLIENT_ID, "scope": SCOPE}
    with Authority() as authority:
        authority.given_to = lambda token: setattr(mms, "token", token)
        known = {**entra, "authority": authority.url}
        assert try_server(account(mms.url, **known, client_secret=SECRET), KnownSecrets()).succeeded
        wrong = try_server(account(mms.url, **known, client_secret="wrong-one"), KnownSecrets())
        mms.plan("GET", "services", faults.status(401))
        elsewhere = try_server(account(mms.url, **known, client_secret=SECRET), KnownSecrets())
    assert "Check the tenant, client ID, client secret" in told(wrong)
    assert "wrong-one" not in told(wrong)
    assert "Check that the scope is the server's own." in told(elsewhere)
    away = try_server(account(mms.url, **entra, authority="http://127.0.0.1:1", client_secret=SECRET), KnownSecrets())
    assert "Nothing is listening there" in told(away)


# --- registries ---------------------------------------------------------------------------------------------------


@pytest.fixture(params=["basic", "bearer"])
def registry(request: pytest.FixtureRequest) -> Iterator[RegistryDouble]:
    with running_registry(request.param) as running:
        yield running


def test_a_registry_lets_its_user_in(registry: RegistryDouble) -> None:
    trial = try_registry(registry.location, USER, PASSWORD)
    assert trial.succeeded
    assert f"accepts the user “{USER}”" in trial.message
    assert not trial.message.count(PASSWORD)


def test_a_wrong_password_and_a_missing_one_are_distinguished(registry: RegistryDouble) -> None:
    wrong, none = try_registry(registry.location, USER, "wrong"), try_registry(registry.location, "", "")
    assert "rejected this user and password" in told(wrong)
    assert "requires a user and password" in told(none)


def test_a_password_is_only_sent_to_protected_realms(registry: RegistryDouble) -> None:
    if registry.scheme == "bearer":
        registry.realm = "ftp://127.0.0.1/token"
        assert "without TLS" in told(try_registry(registry.location, USER, PASSWORD))


def test_a_password_is_only_sent_to_public_and_listed_realms(registry: RegistryDouble, settings: Any) -> None:
    if registry.scheme != "bearer":
        return
    with running_registry("bearer") as other:
        other.tokens = registry.tokens
        registry.realm = other.realm
        refused = told(try_registry(registry.location, USER, PASSWORD))
        assert "No password was sent there. If it belongs to the registry, add it to PRIVATE_HOSTS." in refused
        assert not other.requests
        settings.PRIVATE_HOSTS = [other.location]
        assert try_registry(registry.location, USER, PASSWORD).succeeded


def test_a_registry_cannot_redirect_to_a_forbidden_address(registry: RegistryDouble) -> None:
    if registry.scheme == "bearer":
        registry.realm = "http://169.254.169.254/token"
        assert "never called" in told(try_registry(registry.location, USER, PASSWORD))


def test_a_server_that_is_not_a_registry_is_reported(mms: MMS) -> None:
    assert "Check that it's a registry." in told(try_registry(mms.url, USER, PASSWORD))
    assert try_registry("oci://local", "", "").succeeded
    assert "Check “Location” for a typo" in told(try_registry("no-such-host.invalid", "", ""))


# --- clusters -----------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster() -> Iterator[Kubernetes]:
    with Kubernetes() as running:
        yield running


def test_a_cluster_is_asked_for_its_version_with_inline_credentials(cluster: Kubernetes) -> None:
    trial = try_cluster(kubeconfig.parse(cluster.kubeconfig()))
    assert trial.succeeded, told(trial)
    assert "Kubernetes v1.31.2" in trial.message
    assert cluster.asked == [("/version", "Bearer token-of-the-cluster", False)]


def test_a_cluster_takes_a_client_certificate(cluster: Kubernetes) -> None:
    certificate, key = (base64.b64encode(part).decode() for part in cluster.issuer.issue("robot"))
    user = {"client-certificate-data": certificate, "client-key-data": key}
    assert try_cluster(kubeconfig.parse(cluster.kubeconfig(user))).succeeded
    assert cluster.asked[0][2]


def test_only_the_authority_in_the_kubeconfig_is_trusted(cluster: Kubernetes) -> None:
    other = base64.b64encode(Issuer().certificate).decode()
    trial = try_cluster(kubeconfig.parse(cluster.kubeconfig(None, **{"certificate-authority-data": other})))
    assert "certificate" in told(trial).lower()
    assert not cluster.asked, "no token was sent"


def test_an_unchecked_certificate_is_warned_of(cluster: Kubernetes) -> None:
    text = cluster.kubeconfig(None, **{"certificate-authority-data": "", "insecure-skip-tls-verify": True})
    trial = try_cluster(kubeconfig.parse(text))
    assert trial.succeeded
    assert "isn't checked" in trial.advice


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"status": 403}, "grants no access"),
        ({"status": 302, "headers": {"Location": "https://elsewhere.example"}}, "redirects to another address"),
        ({"body": b"<h1>hello"}, "isn't Kubernetes"),
        ({"body": b"[]"}, "isn't Kubernetes"),
        ({"status": 500}, "isn't Kubernetes"),
    ],
)
def test_each_cluster_failure_is_reported(cluster: Kubernetes, change: dict[str, Any], words: str) -> None:
    vars(cluster).update(change)
    trial = try_cluster(kubeconfig.parse(cluster.kubeconfig()))
    assert not trial.succeeded
    assert words in told(trial)


def test_a_wrong_token_of_a_cluster_is_reported(cluster: Kubernetes) -> None:
    trial = try_cluster(kubeconfig.parse(cluster.kubeconfig({"token": "wrong-and-secret"})))
    assert "rejected these credentials" in trial.message
    assert "wrong-and-secret" not in told(trial)


def test_a_key_that_does_not_match_the_certificate_is_reported(cluster: Kubernetes) -> None:
    certificate, key = cluster.issuer.issue("robot")[0], cluster.issuer.issue("other")[1]
    user = {
        "client-certificate-data": base64.b64encode(certificate).decode(),
        "client-key-data": base64.b64encode(key).decode(),
    }
    assert "belong together" in told(try_cluster(kubeconfig.parse(cluster.kubeconfig(user))))


def test_the_bundled_engine_needs_no_call() -> None:
    assert try_cluster(kubeconfig.ClusterAccess(kubeconfig.BUNDLED_ENGINE)).succeeded


# --- common ------------------------------------------------------------------------------------------------------


@pytest.mark.serial
def test_a_silent_name_server_does_not_block_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_tests, "TEST_SECONDS", 0.2)
    started = time.monotonic()
    trial = with_timeout(lambda: time.sleep(1) or ConnectionTestResult(True, "late"), Redactor())
    assert quiet_seconds(time.monotonic() - started) < 0.8
    assert "No response within" in trial.message


@pytest.mark.parametrize("text", spellings("pass word/5521").values())
def test_the_result_of_a_test_shows_no_secret(text: str) -> None:
    result = ConnectionTestResult(False, f"It said {text}.", f"Check {text}.")
    told = with_timeout(lambda: result, Redactor(["pass word/5521"]))
    assert told == ConnectionTestResult(False, "It said ….", "Check ….")


def test_an_unexpected_error_in_a_test_is_reported_without_details() -> None:
    def breaks() -> ConnectionTestResult:
        raise OSError("secret-in-an-error")

    assert with_timeout(breaks, Redactor()) == ConnectionTestResult(
        False, "The connection test failed with an unexpected error.", "Check the site's log for the reason."
    )
