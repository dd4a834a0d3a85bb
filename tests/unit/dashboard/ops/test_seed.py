"""`manage.py seed`: sample data for an empty database, which it never adds to any other."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import transaction
from django.test import Client
from django.utils import timezone

from dashboard.access import revocation
from dashboard.audit.record import Result
from dashboard.models import ApiToken, AuditEntry, Identity, Machine, Membership, Role, Source
from dashboard.ops.seed import fill, live
from dashboard.ops.seed.accounts import HEALTHY
from deployments.accounts.availability import client_for
from deployments.client import errors, wire
from deployments.live.badges import badges_of
from deployments.models import Asset, HostingAccount, Image, Manifest, Operation, RegisteredModel, Service
from deployments.models.operation import TERMINAL, Kind, State
from deployments.operations import dispatch, requests
from mms.engines.base import Health
from tests.twins import twins

pytestmark = pytest.mark.django_db
PASSWORD = "correct horse 42"
LISTS = ["models", "assets", "manifests", "images", "services", "operations", "members", "roles"]
SETTINGS = ["settings", "settings/registries", "settings/clusters"]
DETAILS = {
    "models": RegisteredModel,
    "assets": Asset,
    "manifests": Manifest,
    "images": Image,
    "services": Service,
    "operations": Operation,
}


@pytest.fixture(scope="module")
def filled(django_db_setup: None, django_db_blocker: Any) -> Iterator[fill.FillResult]:
    """Create one installation for all tests that only read it."""
    with django_db_blocker.unblock(), transaction.atomic():
        yield fill.fill(PASSWORD)
        transaction.set_rollback(True)


@pytest.fixture
def made(filled: fill.FillResult, db: None, live_redis: Any) -> fill.FillResult:
    return filled


@pytest.fixture
def admin(made: fill.FillResult, monkeypatch: pytest.MonkeyPatch) -> Client:
    """Return the administrator's client, at a site that can't call any server."""

    def connect(self: socket.socket, address: Any) -> None:
        assert isinstance(address, str), f"called {address}"  # the address of Redis is a path
        return original(self, address)

    original = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", connect)
    client = Client()
    client.force_login(get_user_model().objects.get(username="admin"))
    return client


def test_there_is_every_kind_of_operation_in_every_state(made: fill.FillResult) -> None:
    found = set(Operation.objects.values_list("kind", "state"))
    assert found == {(str(kind), str(state)) for kind in Kind for state in State}


@pytest.mark.parametrize("noun", [RegisteredModel, Manifest, Image, Service])
def test_every_resource_has_rows_for_every_badge(made: fill.FillResult, noun: Any) -> None:
    rows = list(noun.objects.select_related("account"))
    shown = {badge.state for badge in badges_of(rows)}
    missing = {str(state) for state in State} - {str(State.SUCCEEDED)} | {"gone"}
    assert shown >= missing | (set() if noun is Service else {"available"})


def test_services_have_every_reported_state(made: fill.FillResult) -> None:
    health = {str(health) for health in Health if health != Health.ABSENT}  # watched services are started again
    assert set(Service.objects.exclude(health="").values_list("health", flat=True)) == health
    words = {wire.phase(word) for word in Service.objects.filter(health="").values_list("state", flat=True)}
    assert words == {*wire.Phase, None}
    revisions = [one["state"] for service in Service.objects.exclude(health="") for one in service.revisions]
    assert {"active", "stopped", "failed", "starting"} <= set(revisions)


def test_users_accounts_and_tokens_cover_all_choices(made: fill.FillResult) -> None:
    assert set(Membership.objects.values_list("role", flat=True)) == set(Role.values)
    assert set(Membership.objects.values_list("source", flat=True)) == set(Source.values)
    assert set(HostingAccount.objects.values_list("sign_in", flat=True)) == set(HostingAccount.SignIn.values)
    assert set(ApiToken.objects.values_list("scope", flat=True)) == set(ApiToken.Scope.values)
    assert {token.inactive_reason().split(" ")[0] for token in ApiToken.objects.all()} == {"", "expired", "was"}
    assert set(AuditEntry.objects.values_list("result", flat=True)) == set(Result.values)
    assert set(AuditEntry.objects.values_list("via", flat=True)) == {"page", "api", "command", "provider"}
    assert get_user_model().objects.filter(is_active=False).exists()
    assert Machine.objects.exists()
    assert Identity.objects.exists()


def test_one_server_is_healthy_one_is_unreachable_and_one_refuses_the_credentials(made: fill.FillResult) -> None:
    healthy, unreachable, refused = HostingAccount.objects.order_by("name")
    assert not healthy.is_failing
    assert unreachable.error
    assert not unreachable.token_refused
    assert refused.token_refused


def test_the_unreachable_server_is_described_as_workers_describe_it(made: fill.FillResult) -> None:
    account = HostingAccount.objects.get(name="credit-risk")
    with client_for(account) as client, pytest.raises(errors.UnreachableError) as raised:
        client.list_services()
    assert account.error == str(raised.value)


def test_two_hundred_models_are_registered(made: fill.FillResult) -> None:
    registered = RegisteredModel.objects.filter(vanished_at=None).exclude(mms_id=None)
    assert 200 <= registered.count() < 210
    assert len(set(registered.values_list("name", flat=True))) > 30


def test_histories_go_back_six_weeks_and_never_into_the_future(made: fill.FillResult) -> None:
    now = timezone.now()
    for rows, name in (
        (Operation, "requested_at"),
        (Operation, "finished_at"),
        (AuditEntry, "at"),
        (Service, "added_at"),
    ):
        times = list(rows.objects.exclude(**{name: None}).values_list(name, flat=True))
        assert max(times) <= now, name
        assert (now - min(times)).days > 28, name
    for operation in Operation.objects.filter(state__in=TERMINAL):
        assert operation.finished_at is not None
        assert operation.requested_at < operation.finished_at == operation.state_since


def test_the_audit_log_is_in_the_order_of_time_and_names_every_operation(made: fill.FillResult) -> None:
    times = list(AuditEntry.objects.order_by("pk").values_list("at", flat=True))
    assert times == sorted(times)
    named = {
        entry["operation"]
        for entry in AuditEntry.objects.values_list("after", flat=True)
        if entry and "operation" in entry
    }
    assert named == {str(pk) for pk in Operation.objects.values_list("pk", flat=True)}


def test_requests_can_be_repeated(made: fill.FillResult) -> None:
    operations = {(found.kind, found.state): found for found in Operation.objects.select_related("account")}
    for operation in operations.values():
        assert requests.from_body(operation.account, operation.body)


def test_workers_have_nothing_to_do_and_change_nothing(made: fill.FillResult) -> None:
    before = dict(Operation.objects.values_list("pk", "state"))
    assert dispatch.tick() == []
    dispatch.sweep()
    assert revocation.cancel_unauthorized_operations() == 0
    assert dict(Operation.objects.values_list("pk", "state")) == before


def test_the_healthy_account_stays_fresh_and_has_logs(made: fill.FillResult, admin: Client) -> None:
    live.keep_fresh()
    builds = Operation.objects.filter(account__name=HEALTHY, kind=Kind.CREATE_IMAGE, state=State.FAILED)
    build = builds.exclude(error_code="BuildTimeout").first()
    assert build
    assert "The build failed" in admin.get(f"/accounts/{HEALTHY}/operations/{build.pk}/log/").text
    page = admin.get(f"/accounts/{HEALTHY}/services/").text
    assert "Stale, last synced" not in page
    assert "Synced" in page


@pytest.mark.parametrize("account", ["commerce", "credit-risk", "plant-sensors"])
def test_every_list_answers(admin: Client, account: str) -> None:
    for name in ["", *(f"{name}/" for name in LISTS + SETTINGS)]:
        assert admin.get(f"/accounts/{account}/{name}").status_code == 200, name


@pytest.mark.parametrize("name", ["audit", "people", "tokens", pytest.param("doctor", marks=pytest.mark.slow), "you"])
def test_every_page_of_the_site_answers(admin: Client, name: str) -> None:
    assert admin.get(f"/{name}/").status_code == 200


@pytest.mark.slow
@twins("step", 9, 1)
@pytest.mark.parametrize("noun", DETAILS)
def test_every_detail_page_answers(admin: Client, noun: str, step: int) -> None:
    for account, pk in DETAILS[noun]._default_manager.order_by("pk").values_list("account__name", "pk")[::step]:
        assert admin.get(f"/accounts/{account}/{noun}/{pk}/").status_code == 200, pk


def test_a_second_run_is_refused_and_changes_nothing(made: fill.FillResult) -> None:
    before = fill.count_rows()
    with pytest.raises(CommandError, match="Nothing was written: the database already contains data"):
        call_command("seed", password=PASSWORD)
    assert fill.count_rows() == before == made.counts
