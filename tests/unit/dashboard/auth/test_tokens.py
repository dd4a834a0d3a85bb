"""The page "API tokens": creating, showing once, revoking, ownership and expiry."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import authenticate, get_user_model
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from dashboard.models import ApiToken, AuditEntry, Machine, SentOnce
from tests.support.html import compact
from tests.support.people import Cast, Lab, make_cast, make_lab
from tests.support.programs import Program, person, token_of
from tests.support.workshop import make_account

pytestmark = pytest.mark.django_db
FORM = {"name": "weekly report", "scope": "write", "account": "", "days": "30"}


@pytest.fixture
def lab(live_redis: Any) -> Lab:
    found = make_lab()
    found.token.delete()  # these tests count the tokens
    return found


@pytest.fixture
def cast(lab: Lab) -> Cast:
    return make_cast(lab.account)


def create(browser: Client, **more: str) -> str:
    """Create a token and return its text from the page."""
    page = browser.post("/tokens/new/", {**FORM, **more})
    assert page.status_code == 200
    found = re.search(r'id="made-token"[^>]*>(dash_[\w-]{43})<', page.text)
    assert found
    return found[1]


def test_a_token_is_shown_once_and_stored_as_a_digest(lab: Lab, cast: Cast) -> None:
    page = cast.scientist.post("/tokens/new/", FORM)
    found = re.search(r"dash_[\w-]{43}", page.text)
    assert found
    text = found[0]
    assert "no-store" in page.headers["Cache-Control"]
    again = cast.scientist.get("/tokens/")
    assert "weekly report" in again.text
    assert text not in again.text
    row = ApiToken.objects.get()
    assert text not in str(vars(row))
    assert len(row.digest) == 64
    assert row.expires_at - timezone.now() < timedelta(days=30)
    assert Program(text).get("/v1/accounts/lab/").status_code == 200


def test_creating_and_revoking_a_token_is_audited_without_its_text(lab: Lab, cast: Cast) -> None:
    text = create(cast.scientist)
    cast.scientist.post(f"/tokens/{ApiToken.objects.get().pk}/revoke/")
    made, revoked = AuditEntry.objects.order_by("pk")
    assert (made.actor, made.action, made.target) == ("sam", "create_token", "weekly report of sam")
    assert (revoked.actor, revoked.action, revoked.result) == ("sam", "revoke_token", "done")
    assert made.after
    assert made.after["scope"] == "write"
    assert text not in str(vars(made))


def test_a_revoked_token_is_rejected_with_the_reason(lab: Lab, cast: Cast) -> None:
    program = Program(create(cast.scientist))
    assert program.get("/v1/").status_code == 200
    assert cast.scientist.post(f"/tokens/{ApiToken.objects.get().pk}/revoke/").headers["Location"] == "/tokens/"
    refused = program.get("/v1/")
    assert refused.status_code == 401
    assert "was revoked on" in refused.json()["error"]["message"]
    assert "Revoked" in cast.scientist.get("/tokens/").text


def test_an_expired_token_is_rejected_with_the_reason(lab: Lab, cast: Cast) -> None:
    program = Program(create(cast.scientist))
    ApiToken.objects.update(expires_at=timezone.now())
    assert "expired on" in program.get("/v1/").json()["error"]["message"]
    assert "Expired" in cast.scientist.get("/tokens/").text


def test_users_see_and_revoke_their_own_tokens_and_administrators_all_tokens(lab: Lab, cast: Cast) -> None:
    create(cast.scientist)
    token = ApiToken.objects.get()
    assert "weekly report" not in cast.operator.get("/tokens/").text
    assert cast.operator.post(f"/tokens/{token.pk}/revoke/").status_code == 404
    assert "weekly report" in cast.admin.get("/tokens/").text
    cast.admin.post(f"/tokens/{token.pk}/revoke/")
    token.refresh_from_db()
    assert token.revoked_at


def test_a_token_can_be_limited_to_an_account_that_its_owner_can_see(lab: Lab, cast: Cast) -> None:
    hidden = make_account("not-for-sam")
    page = cast.scientist.get("/tokens/")
    assert "not-for-sam" not in page.text
    refused = cast.scientist.post("/tokens/new/", {**FORM, "account": hidden.pk})
    assert refused.status_code == 422
    assert not ApiToken.objects.exists()
    assert Program(create(cast.scientist, account=str(lab.account.pk))).get("/v1/accounts/lab/").status_code == 200


@pytest.mark.parametrize("wrong", [{"days": "366"}, {"days": ""}, {"scope": "all"}, {"name": ""}, {"name": "x" * 101}])
def test_a_token_needs_a_name_and_expires_within_a_year(wrong: dict[str, str], lab: Lab, cast: Cast) -> None:
    refused = cast.scientist.post("/tokens/new/", {**FORM, **wrong})
    assert refused.status_code == 422
    assert f'id="field-{next(iter(wrong))}"' in refused.text
    assert not ApiToken.objects.exists()


def test_the_last_use_is_recorded_once_a_minute(lab: Lab) -> None:
    program = Program(token_of(person("sam")))
    program.get("/v1/")
    first = ApiToken.objects.get()
    assert first.last_used_from == "127.0.0.1"
    program.get("/v1/")
    assert ApiToken.objects.get().last_used_at == first.last_used_at
    ApiToken.objects.update(last_used_at=timezone.now() - timedelta(minutes=2))
    program.get("/v1/")
    second = ApiToken.objects.get()
    assert first.last_used_at
    assert second.last_used_at
    assert second.last_used_at >= first.last_used_at


def test_a_service_account_has_no_password_and_gets_its_tokens_from_an_administrator(lab: Lab, cast: Cast) -> None:
    call_command("create_user", "robot", "--role", "scientist", "--account", "lab", "--machine")
    robot = get_user_model().objects.get(username="robot")
    assert Machine.objects.get().user == robot
    assert not robot.has_usable_password()
    assert authenticate(username="robot", password="") is None
    assert "<small>service account</small>" in compact(cast.admin.get("/people/").text)
    assert cast.admin.post(f"/people/{robot.pk}/invite/").status_code == 404
    assert "machine" not in cast.operator.get("/tokens/").text
    cast.operator.post("/tokens/new/", {**FORM, "owner": robot.pk})
    assert not ApiToken.objects.filter(owner=robot).exists()
    text = create(cast.admin, owner=str(robot.pk))
    assert ApiToken.objects.get(owner=robot).name == "weekly report"
    assert Program(text).get("/v1/accounts/").json()["accounts"][0]["role"] == "Data scientist"


def test_an_administrator_cannot_create_a_token_for_another_user(lab: Lab, cast: Cast) -> None:
    sam = get_user_model().objects.get(username="sam")
    call_command("create_user", "robot", "--role", "viewer", "--account", "lab", "--machine")
    assert cast.admin.post("/tokens/new/", {**FORM, "owner": sam.pk}).status_code == 422
    assert not ApiToken.objects.exists()


def test_deleting_a_user_deletes_their_tokens(lab: Lab) -> None:
    sam = person("sam", lab.account)
    token_of(sam)
    sam.delete()
    assert not ApiToken.objects.exists()
    assert not SentOnce.objects.exists()
