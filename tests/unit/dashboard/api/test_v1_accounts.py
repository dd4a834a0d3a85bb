"""Administration of servers and accounts over the API."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.utils import timezone

from dashboard.models import AuditEntry, Membership, Role
from deployments.models import HostingAccount, RegisteredModel
from deployments.models.operation import State
from tests.support.people import Lab, make_lab, make_operation
from tests.support.programs import Program, person, token_of

pytestmark = pytest.mark.django_db
SERVER = "/v1/accounts/lab/server/"
PLANTED = "planted-token-7"


@pytest.fixture
def lab(live_redis: Any) -> Lab:
    return make_lab()


@pytest.fixture
def operator(lab: Lab) -> Program:
    return Program(token_of(person("otto", lab.account, Role.OPERATOR)))


@pytest.fixture
def admin() -> Program:
    return Program(token_of(get_user_model().objects.create_superuser("ada")))


def test_the_server_is_changed_field_by_field_and_its_secret_is_never_read(lab: Lab, operator: Program) -> None:
    shown = operator.get(SERVER).json()
    assert (shown["base_url"], shown["token"], shown["client_secret"]) == ("http://127.0.0.1:9", "set", "not set")
    assert operator.send("PATCH", SERVER, {"token": PLANTED}).json()["secret_set_by"] == "otto"
    changed = operator.send("PATCH", SERVER, {"subscription": "another"})
    assert changed.json()["subscription"] == "another"
    elsewhere = operator.send("PATCH", SERVER, {"base_url": "http://thief.example"})
    assert set(elsewhere.json()["error"]["fields"]) == {"token"}
    account = HostingAccount.objects.get(pk=lab.account.pk)
    assert (account.token, account.subscription, account.base_url) == (PLANTED, "another", "http://127.0.0.1:9")
    entries = AuditEntry.objects.order_by("pk")
    assert [(entry.action, entry.after) for entry in entries] == [
        ("change_server", {"token": "changed"}),
        ("change_server", {"subscription": "another"}),
    ]
    assert PLANTED not in changed.text + elsewhere.text + operator.get(SERVER).text


def test_the_sign_in_method_is_changed_with_its_required_fields(lab: Lab, operator: Program) -> None:
    missing = operator.send("PATCH", SERVER, {"sign_in": "entra"})
    assert set(missing.json()["error"]["fields"]) == {"tenant", "client_id", "scope"}
    wish = {"sign_in": "entra", "tenant": "t.example", "client_id": "c", "scope": "s", "client_secret": PLANTED}
    changed = operator.send("PATCH", SERVER, wish)
    assert (changed.json()["token"], changed.json()["client_secret"]) == ("not set", "set")
    assert PLANTED not in changed.text


def test_an_account_is_added_and_deleting_it_requires_its_name(lab: Lab, admin: Program) -> None:
    wish = {"name": "new", "base_url": "http://127.0.0.1:9", "subscription": "s", "resource_group": "g"}
    made = admin.post("/v1/accounts/", {**wish, "hosting_account": "h", "token": PLANTED})
    assert made.status_code == 201, made.text
    assert PLANTED not in made.text
    assert HostingAccount.objects.get(name="new").token == PLANTED
    again = admin.post("/v1/accounts/", {**wish, "hosting_account": "h", "token": PLANTED})
    assert set(again.json()["error"]["fields"]) == {"name"}
    for body in ({}, {"name": "lab"}):
        refused = admin.send("DELETE", made.headers["Location"], body)
        assert set(refused.json()["error"]["fields"]) == {"name"}
    assert admin.send("DELETE", made.headers["Location"], {"name": "new"}).status_code == 204
    assert not HostingAccount.objects.filter(name="new").exists()
    kept = AuditEntry.objects.order_by("pk").values_list("action", "target")
    assert list(kept) == [("add_account", "new"), ("delete_account", "new")]


def test_an_account_with_open_operations_cannot_be_deleted(lab: Lab, admin: Program) -> None:
    make_operation(lab.image, state=State.QUEUED)
    assert admin.send("DELETE", "/v1/accounts/lab/", {"name": "lab"}).status_code == 409
    assert RegisteredModel.objects.exists()
    assert Membership.objects.filter(account_id=lab.account.pk).exists()


def test_an_operator_ends_a_pause_of_the_server(lab: Lab, operator: Program) -> None:
    url = "/v1/accounts/lab/pause/end/"
    assert operator.post(url).json() == {"pause": "none"}
    until = timezone.now() + timedelta(hours=1)
    HostingAccount.objects.filter(pk=lab.account.pk).update(error="It is busy.", not_before=until)
    assert operator.get("/v1/accounts/lab/").json()["next_attempt_at"] == until.isoformat()
    scientist = Program(token_of(person("sam", lab.account, Role.SCIENTIST)))
    assert scientist.post(url).status_code == 403
    assert operator.send("POST", url, {"now": True}).status_code == 422
    ended = operator.post(url)
    assert (ended.status_code, ended.json()) == (202, {"pause": "ended"})
    assert operator.get("/v1/accounts/lab/").json()["next_attempt_at"] is None
    assert AuditEntry.objects.latest("pk").action == "end_pause"
