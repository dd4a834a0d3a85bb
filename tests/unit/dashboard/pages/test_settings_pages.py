"""Settings of an account: access, saved secrets, connection tests, and no secrets in pages."""

import logging
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from django.utils.html import escape

from dashboard.models import AuditEntry, Membership
from deployments.models import Cluster, HostingAccount, Image, Operation, RegistryInfo, Service
from deployments.models.operation import Kind, State
from tests.doubles.authority import CLIENT_ID, SCOPE, SECRET, TENANT, Authority
from tests.doubles.kubernetes import Kubernetes
from tests.doubles.kubernetes import kubeconfig as written
from tests.doubles.mms import MMS
from tests.doubles.registry import PASSWORD, USER, running_registry
from tests.support.html import compact
from tests.support.people import Cast, Lab, make_cast, make_lab, make_operation
from tests.support.workshop import KUBE_CONFIG, REGISTRY_PASSWORD, SCORING_KEY

pytestmark = pytest.mark.django_db(transaction=True)
PLANTED = "planted-secret-8472"
CONFIG = written({"server": "https://10.0.0.9:6443"}, {"token": PLANTED})
HTMX = {"HX-Request": "true", "HX-Target": "connection-test"}


@pytest.fixture
def lab(live_redis: Any) -> Lab:
    return make_lab()


@pytest.fixture
def cast(lab: Lab) -> Cast:
    return make_cast(lab.account)


@pytest.fixture(autouse=True)
def nothing_secret_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    for secret in (PLANTED, REGISTRY_PASSWORD, KUBE_CONFIG, PASSWORD, SECRET):
        assert secret not in caplog.text
        assert secret not in str(list(AuditEntry.objects.values()))


def server(lab: Lab, **more: Any) -> dict[str, Any]:
    """Return the fields of the form as the page shows them."""
    kept = HostingAccount.objects.get(pk=lab.account.pk)
    names = "base_url subscription resource_group hosting_account api_version sign_in tenant client_id scope authority"
    return {**{name: getattr(kept, name) for name in names.split()}, "token": "", "client_secret": "", **more}


def registry(**more: Any) -> dict[str, Any]:
    return {"name": "our registry", "location": "registry.example", "user": "robot", "password": "", **more}


def cluster(**more: Any) -> dict[str, Any]:
    return {"name": "prod", "kube_config": CONFIG, "pull_secret": "acr", **more}


def errors_of(page: Any) -> str:
    assert page.status_code == 422, page.status_code
    found = re.findall(r'<ul class="errorlist".*?</ul>', page.text, re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", part) for part in found)


# --- the server ---------------------------------------------------------------------------------------------------


def pause(lab: Lab, **failure: Any) -> None:
    """Record that the server asked for a pause of an hour, and queue an operation that waits for its end."""
    until = timezone.now() + timedelta(hours=1)
    busy = {"error": "It is busy.", "error_at": timezone.now(), "not_before": until} | failure
    HostingAccount.objects.filter(pk=lab.account.pk).update(**busy)
    make_operation(lab.model, Kind.REGISTER_MODEL, State.QUEUED, next_poll_at=until)


def test_an_operator_ends_a_pause_of_the_server(lab: Lab, cast: Cast) -> None:
    pause(lab)
    url = f"{lab.url}pause/end/"
    assert f'action="{url}"' in cast.operator.get(lab.url).text
    assert f'action="{url}"' not in cast.scientist.get(lab.url).text
    assert cast.scientist.post(url).status_code == 403
    assert HostingAccount.objects.get(pk=lab.account.pk).next_attempt_at
    ended = cast.operator.post(url, follow=True)
    assert "Calling the server again." in ended.text
    assert f'action="{url}"' not in ended.text
    account = HostingAccount.objects.get(pk=lab.account.pk)
    assert (account.next_attempt_at, account.error) == (None, "It is busy."), "shown until a call succeeds"
    waiting = Operation.objects.get(state=State.QUEUED)
    assert waiting.next_poll_at
    assert waiting.next_poll_at <= timezone.now()
    entry = AuditEntry.objects.latest("pk")
    assert (entry.action, entry.actor, entry.result) == ("end_pause", "otto", AuditEntry.Result.DONE)
    assert (entry.before or {})["error"] == "It is busy."


def test_without_a_pause_the_page_says_so(lab: Lab, cast: Cast) -> None:
    assert "isn’t paused" in cast.operator.post(f"{lab.url}pause/end/", follow=True).text
    assert AuditEntry.objects.latest("pk").result == AuditEntry.Result.REFUSED


def test_the_live_part_of_a_page_has_the_button_too(lab: Lab, cast: Cast) -> None:
    pause(lab, token_refused=True, not_before=None, refusal_retry_at=timezone.now() + timedelta(minutes=30))
    part = cast.operator.get(lab.url, headers={"HX-Request": "true", "HX-Target": "trouble"}).text
    assert "<html" not in part
    assert f'action="{lab.url}pause/end/"' in part
    assert "csrfmiddlewaretoken" in part
    assert "csrfmiddlewaretoken" in cast.operator.get(lab.url).text.partition('id="trouble"')[2].partition("</form>")[0]
    assert "which are retried automatically" in compact(part)


def test_one_list_that_cannot_be_read_is_named(lab: Lab, cast: Cast) -> None:
    reason = "Couldn't read the list of models. It failed (status 500)."
    HostingAccount.objects.filter(pk=lab.account.pk).update(error=reason, failed_request="list of models")
    page = compact(cast.operator.get(lab.url).text)
    assert "One list can’t be read. Everything else continues." in page
    assert escape(reason) in page
    assert "Calls to this account’s server are failing" not in page


def test_changing_the_token_resumes_calls_to_the_server(lab: Lab, cast: Cast) -> None:
    pause(lab, token_refused=True, error="refused")
    answer = cast.operator.post(f"{lab.url}settings/", server(lab, token=PLANTED))
    assert answer.status_code == 302
    kept = HostingAccount.objects.get(pk=lab.account.pk)
    assert (kept.token, kept.secret_set_by, kept.token_refused, kept.error) == (PLANTED, "otto", False, "")
    assert Operation.objects.filter(state=State.QUEUED, next_poll_at__lte=timezone.now()).exists(), "it is sent now"
    page = cast.operator.get(f"{lab.url}settings/").text
    assert "Saved <time" in page
    assert "by otto" in compact(page)
    assert PLANTED not in page


def test_an_empty_token_keeps_the_saved_one(lab: Lab, cast: Cast) -> None:
    assert cast.operator.post(f"{lab.url}settings/", server(lab, api_version="2")).status_code == 302
    kept = HostingAccount.objects.get(pk=lab.account.pk)
    assert (kept.api_version, kept.token, kept.secret_set_by) == ("2", "t", "")
    entry = AuditEntry.objects.get()
    assert (entry.action, entry.target) == ("change_server", "lab")
    assert entry.before
    assert (entry.before["api_version"], entry.after) == ("2017-06-01-privatepreview", {"api_version": "2"})


def test_a_changed_secret_is_audited_without_its_value(lab: Lab, cast: Cast) -> None:
    cast.operator.post(f"{lab.url}settings/", server(lab, token=PLANTED))
    assert AuditEntry.objects.get().after == {"token": "changed"}


@pytest.mark.parametrize("page", ["settings/", "settings/test/"])
def test_a_saved_token_is_never_sent_to_another_server(page: str, lab: Lab, cast: Cast, mms: MMS) -> None:
    """Else who may change the address could have it sent to a server of theirs."""
    answer = cast.operator.post(f"{lab.url}{page}", server(lab, base_url=mms.url))
    assert "Enter the bearer token again" in errors_of(answer)
    assert not mms.requests
    assert HostingAccount.objects.get(pk=lab.account.pk).base_url == "http://127.0.0.1:9"


def test_path_and_case_do_not_make_another_server(lab: Lab, cast: Cast) -> None:
    answer = cast.operator.post(f"{lab.url}settings/", server(lab, base_url="http://127.0.0.1:9/behind/"))
    assert answer.status_code == 302
    assert HostingAccount.objects.get(pk=lab.account.pk).base_url == "http://127.0.0.1:9/behind"


def test_changing_to_entra_id_deletes_the_token(lab: Lab, cast: Cast) -> None:
    entra = {"sign_in": "entra", "tenant": TENANT, "client_id": CLIENT_ID, "scope": SCOPE}
    incomplete = cast.operator.post(f"{lab.url}settings/", server(lab, sign_in="entra"))
    assert "Required for Entra ID." in errors_of(incomplete)
    without = cast.operator.post(f"{lab.url}settings/", server(lab, **entra))
    assert "Enter the client secret." in errors_of(without)
    cast.operator.post(f"{lab.url}settings/", server(lab, **entra, client_secret=PLANTED))
    kept = HostingAccount.objects.get(pk=lab.account.pk)
    assert (kept.sign_in, kept.token, kept.client_secret) == ("entra", None, PLANTED)
    assert PLANTED not in cast.operator.get(f"{lab.url}settings/").text
    elsewhere = cast.operator.post(f"{lab.url}settings/", server(lab, authority="https://evil.example"))
    assert "Enter the client secret again" in errors_of(elsewhere)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("base_url", "mms.example", "Enter the full URL"),
        ("base_url", "http://169.254.169.254", "never called"),
        ("base_url", "http://mms.example/api", "Leave out /api"),
        ("base_url", "", "required"),
        ("token", "two words", "Check that you copied all of it"),
        ("token", "tokén", "Check that you copied all of it"),
        ("authority", "http://login.example", "Start with https"),
        ("tenant", "../../x", "directory"),
        ("sign_in", "none", "valid choice"),
        ("subscription", "", "required"),
    ],
)
def test_an_invalid_value_is_an_error_at_its_field_and_nothing_is_saved(
    name: str, value: str, words: str, lab: Lab, cast: Cast
) -> None:
    before = HostingAccount.objects.filter(pk=lab.account.pk).values().get()
    assert words in errors_of(cast.operator.post(f"{lab.url}settings/", server(lab, **{name: value})))
    assert HostingAccount.objects.filter(pk=lab.account.pk).values().get() == before


def test_a_form_with_errors_shows_no_entered_secret(lab: Lab, cast: Cast) -> None:
    page = cast.operator.post(f"{lab.url}settings/", server(lab, base_url="x", token=PLANTED))
    assert page.status_code == 422
    assert PLANTED not in page.text
    page = cast.operator.post(f"{lab.url}settings/clusters/new/", cluster(name=""))
    assert page.status_code == 422
    assert PLANTED not in page.text


def test_the_connection_test_uses_the_form_and_saves_nothing(lab: Lab, cast: Cast, mms: MMS) -> None:
    place = {"base_url": mms.url, "hosting_account": "a"}
    page = cast.operator.post(f"{lab.url}settings/test/", server(lab, **place, token=MMS.token))
    assert "Connection works." in page.text
    assert mms.url in page.text
    wrong = cast.operator.post(f"{lab.url}settings/test/", server(lab, **place, token=PLANTED), headers=HTMX)
    assert "Get a new one from the person who runs the server" in wrong.text
    assert wrong.text.startswith("<section")
    assert PLANTED not in page.text + wrong.text
    assert HostingAccount.objects.get(pk=lab.account.pk).base_url == "http://127.0.0.1:9"
    results = AuditEntry.objects.order_by("pk").values_list("action", "after__works")
    assert list(results) == [
        ("test_server", True),
        ("test_server", False),
    ]


def test_the_connection_test_includes_entra_id(lab: Lab, cast: Cast, mms: MMS) -> None:
    with Authority() as authority:
        authority.given_to = lambda token: setattr(mms, "token", token)
        entra = {"sign_in": "entra", "tenant": TENANT, "client_id": CLIENT_ID, "scope": SCOPE}
        place = {"base_url": mms.url, "hosting_account": "a", "authority": authority.url}
        page = cast.operator.post(f"{lab.url}settings/test/", server(lab, **entra, **place, client_secret=SECRET))
    assert "Connection works." in page.text
    assert SECRET not in page.text


# --- accounts -----------------------------------------------------------------------------------------------------


def new_account(lab: Lab, **more: Any) -> dict[str, Any]:
    return {**server(lab), "name": "far", "base_url": "https://mms.example", "token": PLANTED, **more}


def test_an_administrator_adds_an_account(lab: Lab, cast: Cast) -> None:
    page = cast.admin.get("/add-account/").text
    assert 'value="https://login.microsoftonline.com"' in page
    assert 'value="2017-06-01-privatepreview"' in page
    assert cast.admin.post("/add-account/", new_account(lab)).headers["Location"] == "/accounts/far/settings/"
    added = HostingAccount.objects.get(name="far")
    assert (added.base_url, added.token, added.secret_set_by) == ("https://mms.example", PLANTED, "ada")
    entry = AuditEntry.objects.get()
    assert entry.after
    assert (entry.action, entry.target, entry.after["token"]) == ("add_account", "far", "changed")
    assert "An account with this name already exists" in errors_of(cast.admin.post("/add-account/", new_account(lab)))
    assert "Enter the bearer token." in errors_of(
        cast.admin.post("/add-account/", new_account(lab, name="x", token=""))
    )


@pytest.mark.parametrize("person", ["operator", "scientist", "viewer", "stranger"])
def test_only_administrators_add_and_delete_accounts(person: str, lab: Lab, cast: Cast) -> None:
    client: Client = cast.everybody()[person]
    assert client.post("/add-account/", new_account(lab)).status_code == 403
    assert client.post(f"{lab.url}settings/delete/", {"name": "lab"}).status_code in {403, 404}
    assert HostingAccount.objects.count() == 2


def test_deleting_an_account_shows_the_consequences_and_needs_its_name(lab: Lab, cast: Cast) -> None:
    url = f"{lab.url}settings/delete/"
    page = cast.admin.get(url).text
    assert "services: 1," in page
    assert "4 lose" in page
    assert "Type lab to delete it." in errors_of(cast.admin.post(url, {"name": "Lab"}))
    make_operation(lab.model, state=State.RUNNING)
    assert "can’t be deleted while operations are open" in cast.admin.post(url, {"name": "lab"}).text
    Operation.objects.update(state=State.SUCCEEDED)
    assert cast.admin.post(url, {"name": "lab"}).status_code == 302
    assert not HostingAccount.objects.filter(name="lab").exists()
    assert not Service.objects.filter(name="iris-live").exists()
    assert not Membership.objects.filter(account_id=lab.account.pk).exists()
    entry = AuditEntry.objects.latest("pk")
    assert entry.before
    assert (entry.action, entry.account_name, entry.before["services"]) == ("delete_account", "lab", 1)


# --- registries ---------------------------------------------------------------------------------------------------


def test_a_registry_is_added_changed_and_deleted(lab: Lab, cast: Cast) -> None:
    url = f"{lab.url}settings/registries/"
    assert cast.operator.post(f"{url}new/", registry(name="acr", password=PLANTED)).status_code == 302
    added = RegistryInfo.objects.get(name="acr")
    assert (added.account_id, added.password, added.secret_set_by) == (lab.account.pk, PLANTED, "otto")
    assert cast.operator.post(f"{url}{added.pk}/", registry(name="acr-2")).status_code == 302
    added.refresh_from_db()
    assert (added.name, added.password) == ("acr-2", PLANTED)
    listed = cast.operator.get(url).text
    assert "acr-2" in listed
    assert "by otto" in listed
    assert PLANTED not in listed + cast.operator.get(f"{url}{added.pk}/").text
    assert cast.operator.post(f"{url}{added.pk}/delete/").status_code == 302
    assert not RegistryInfo.objects.filter(name="acr-2").exists()


def test_a_saved_password_is_never_sent_to_another_registry_or_for_another_user(lab: Lab, cast: Cast) -> None:
    url = f"{lab.url}settings/registries/{lab.registry.pk}/"
    for change in ({"location": "evil.example"}, {"user": "somebody"}, {"location": "http://registry.example"}):
        assert "Enter the password again" in errors_of(cast.operator.post(url, registry(**change)))
        assert "Enter the password again" in errors_of(cast.operator.post(f"{url}test/", registry(**change)))
    assert cast.operator.post(url, registry(location="registry.example/team")).status_code == 302


def test_a_password_is_deleted_on_request_and_with_its_user(lab: Lab, cast: Cast) -> None:
    url = f"{lab.url}settings/registries/{lab.registry.pk}/"
    assert "not both" in errors_of(cast.operator.post(url, registry(password=PLANTED, forget="on")))
    cast.operator.post(url, registry(forget="on"))
    lab.registry.refresh_from_db()
    assert (lab.registry.password, lab.registry.secret_set_by) == (None, "otto")
    assert AuditEntry.objects.latest("pk").after == {"password": "forgotten"}
    cast.operator.post(url, registry(password=PLANTED))
    cast.operator.post(url, registry(user=""))
    lab.registry.refresh_from_db()
    assert (lab.registry.user, lab.registry.password) == ("", None)


def test_a_registry_can_be_tested_before_it_is_saved(lab: Lab, cast: Cast) -> None:
    with running_registry("bearer") as double:
        typed = registry(name="acr", location=double.location, user=USER, password=PASSWORD)
        page = cast.operator.post(f"{lab.url}settings/registries/new/test/", typed)
    assert "Connection works." in page.text
    assert PASSWORD not in page.text
    assert not RegistryInfo.objects.filter(name="acr").exists()


def test_a_registry_in_use_by_an_operation_cannot_be_deleted(lab: Lab, cast: Cast) -> None:
    body = {"registry": lab.registry.pk}
    running = make_operation(lab.image, Kind.CREATE_IMAGE, State.RUNNING, body=body)
    url = f"{lab.url}settings/registries/{lab.registry.pk}/delete/"
    refused = cast.operator.post(url)
    assert refused.status_code == 422
    assert f"/operations/{running.pk}/" in refused.text
    assert "first image" in cast.operator.get(url).text
    Operation.objects.update(state=State.SUCCEEDED)
    assert cast.operator.post(url).status_code == 302
    lab.image.refresh_from_db()
    assert lab.image.registry is None


def test_registry_names_are_unique_within_an_account(lab: Lab, cast: Cast) -> None:
    answer = cast.operator.post(f"{lab.url}settings/registries/new/", registry())
    assert "A registry with this name already exists." in errors_of(answer)


# --- clusters -----------------------------------------------------------------------------------------------------


def test_a_cluster_is_added_for_production(lab: Lab, cast: Cast) -> None:
    url = f"{lab.url}settings/clusters/"
    assert cast.operator.post(f"{url}new/", cluster(production="on")).status_code == 302
    added = Cluster.objects.get(name="prod")
    assert (added.production, added.kube_config, added.secret_set_by) == (True, CONFIG, "otto")
    page = cast.operator.get(url).text
    assert ">production<" in page
    assert PLANTED not in page + cast.operator.get(f"{url}{added.pk}/").text
    cast.operator.post(f"{url}{added.pk}/", cluster(kube_config="", production=""))
    added.refresh_from_db()
    assert (added.production, added.kube_config) == (False, CONFIG)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("", "Paste the kubeconfig."),
        ("nonsense", "a kubeconfig: it has no “clusters”"),
        (written({"server": "https://k8s.example"}, {"exec": {"command": "sh"}}), "a program to run"),
        (written({"server": "https://k8s.example"}, {"tokenFile": "/etc/shadow"}), "names a file"),
        (written({"server": "http://169.254.169.254"}, {"token": PLANTED}), "never called"),
    ],
)
def test_an_invalid_kubeconfig_is_an_error_at_its_field(config: str, words: str, lab: Lab, cast: Cast) -> None:
    answer = cast.operator.post(f"{lab.url}settings/clusters/new/", cluster(kube_config=config))
    assert words in errors_of(answer)
    assert not Cluster.objects.filter(name="prod").exists()


def test_a_cluster_can_be_tested_with_entered_and_saved_values(lab: Lab, cast: Cast) -> None:
    with Kubernetes() as double:
        typed = cluster(kube_config=double.kubeconfig())
        assert "Kubernetes v1.31.2" in cast.operator.post(f"{lab.url}settings/clusters/new/test/", typed).text
        cast.operator.post(f"{lab.url}settings/clusters/new/", typed)
        url = f"{lab.url}settings/clusters/{Cluster.objects.get(name='prod').pk}/test/"
        assert "Kubernetes v1.31.2" in cast.operator.post(url, cluster(kube_config=""), headers=HTMX).text
    old = f"{lab.url}settings/clusters/{lab.cluster.pk}/test/"  # of before kubeconfigs were read
    answer = cast.operator.post(old, cluster(name="old", kube_config=""))
    assert "The saved kubeconfig isn’t valid" in answer.text


def test_a_cluster_in_use_by_an_operation_cannot_be_deleted(lab: Lab, cast: Cast) -> None:
    make_operation(lab.service, Kind.UPDATE_SERVICE, State.RUNNING)
    url = f"{lab.url}settings/clusters/{lab.cluster.pk}/delete/"
    assert cast.operator.post(url).status_code == 422
    assert "iris-live" in cast.operator.get(url).text
    Operation.objects.update(state=State.SUCCEEDED)
    assert cast.operator.post(url).status_code == 302
    lab.service.refresh_from_db()
    assert lab.service.cluster is None


# --- who sees what ------------------------------------------------------------------------------------------------


def test_data_scientists_choose_clusters_and_registries_by_name_and_see_no_details(lab: Lab, cast: Cast) -> None:
    RegistryInfo.objects.update(location="place-55.example", user="robot-user-55", password=PLANTED)
    Image.objects.update(registry_location="place-55.example")
    Cluster.objects.update(kube_config=CONFIG, pull_secret="pull-55")
    HostingAccount.objects.filter(pk=lab.account.pk).update(client_id="client-55", tenant="tenant-55")
    image = {"manifest": lab.manifest.pk, "registry": lab.registry.pk, "description": "second"}
    service = {"name": "two", "image": lab.image.pk, "cluster": lab.cluster.pk}
    pages = [
        cast.scientist.get(f"{lab.url}images/new/"),
        cast.scientist.get(f"{lab.url}services/new/"),
        cast.scientist.post(f"{lab.url}images/new/", {**image, "do": "preview"}),
        cast.scientist.post(f"{lab.url}services/new/", {**service, "do": "preview"}),
        cast.scientist.post(f"{lab.url}images/new/", {**image, "manifest": ""}),
        cast.scientist.post(f"{lab.url}images/new/", image, follow=True),
        cast.scientist.post(f"{lab.url}services/new/", service, follow=True),
    ]
    nouns = ("models", "assets", "manifests", "images", "services", "operations")
    pages += [cast.scientist.get(f"{lab.url}{noun}/") for noun in nouns]
    for operation in Operation.objects.all():
        pages.append(cast.scientist.get(f"{lab.url}operations/{operation.pk}/"))
    pages += [cast.scientist.get(f"{lab.url}images/{lab.image.pk}/"), cast.scientist.get(lab.url)]
    assert {page.status_code for page in pages} <= {200, 422}
    assert "our registry" in pages[0].text
    assert "this machine" in pages[1].text
    inside = (PLANTED, "10.0.0.9", "place-55", "pull-55", "robot-user-55", "client-55", "tenant-55", SCORING_KEY)
    assert not [(at, secret) for at, page in enumerate(pages) for secret in inside if secret in page.text]


@pytest.mark.parametrize("page", ["settings/", "settings/registries/", "settings/clusters/"])
def test_only_operators_see_settings_and_their_link(page: str, lab: Lab, cast: Cast) -> None:
    for person in ("viewer", "scientist"):
        client = cast.everybody()[person]
        assert client.get(f"{lab.url}{page}").status_code == 403
        assert "/settings/" not in client.get(lab.url).text
    assert f"{lab.url}settings/" in cast.operator.get(lab.url).text


def test_rows_of_another_account_are_not_found(lab: Lab, cast: Cast) -> None:
    for path in (f"registries/{lab.registry.pk}/", f"clusters/{lab.cluster.pk}/", f"clusters/{lab.cluster.pk}/delete/"):
        assert cast.stranger.get(f"/accounts/elsewhere/settings/{path}").status_code == 404
        assert cast.stranger.post(f"/accounts/elsewhere/settings/{path}").status_code == 404
