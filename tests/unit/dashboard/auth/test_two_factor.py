"""Two-factor authentication: codes of an app, recovery codes, and disabling it."""

import base64
import time
from datetime import timedelta
from typing import Any
from unittest.mock import patch
from urllib.parse import unquote

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.utils import timezone

from dashboard.auth import two_factor
from dashboard.models import AuditEntry, OpenSession, RecoveryCode, SecondFactor
from tests.support.html import compact

pytestmark = pytest.mark.django_db
PASSWORD = "a long enough one"


@pytest.fixture
def ada() -> Any:
    return get_user_model().objects.create_user("ada", password=PASSWORD)


def enter_password(client: Client | None = None, to: str = "") -> Any:
    return (client or Client()).post("/sign-in/", {"username": "ada", "password": PASSWORD, "next": to})


def code(user: Any, later: int = 0) -> str:
    """Return the code that the app shows `later` steps from now."""
    secret = SecondFactor.objects.get(user=user).secret
    return two_factor.totp_code(secret, int(time.time()) // two_factor.STEP_SECONDS + later)


def enable(user: Any) -> list[str]:
    """Enable two-factor authentication and return the recovery codes."""
    factor = two_factor.pending_secret(user)
    codes = two_factor.enable(factor, code(user, -1))
    assert codes
    return codes


def is_signed_in(client: Client) -> bool:
    return client.get("/you/").status_code == 200


def test_codes_match_rfc_6238() -> None:
    """The codes of RFC 6238, appendix B, which have eight digits. The last six must match."""
    secret = base64.b32encode(b"12345678901234567890").decode()
    known = {59: "287082", 1111111109: "081804", 1234567890: "005924", 20000000000: "353130"}
    assert {at: two_factor.totp_code(secret, at // 30) for at in known} == known


def test_enabling_2fa_needs_the_password_and_a_code(ada: Any) -> None:
    client = Client()
    enter_password(client)
    page = client.get("/you/second-factor/")
    assert 'src="data:image/svg+xml' in page.text
    assert "otpauth" not in unquote(page.text)
    wrong = client.post("/you/second-factor/", {"code": "000000", "password": PASSWORD})
    assert wrong.status_code == 422
    guessed = client.post("/you/second-factor/", {"code": code(ada), "password": "guess"})
    assert guessed.status_code == 422
    assert not two_factor.is_enabled(ada)
    done = client.post("/you/second-factor/", {"code": code(ada), "password": PASSWORD})
    assert done.text.count("<li><code>") == 10
    assert two_factor.is_enabled(ada)
    assert "10 recovery codes left" in compact(client.get("/you/").text)
    assert AuditEntry.objects.filter(action="second_factor_on", actor="ada").exists()


def test_a_secret_shown_on_an_earlier_page_is_invalid(ada: Any) -> None:
    thief, owner = signed_in(ada), signed_in(ada)
    thief.get("/you/second-factor/")
    seen = code(ada)
    owner.get("/you/second-factor/")
    assert owner.post("/you/second-factor/", {"code": seen, "password": PASSWORD}).status_code == 422
    assert owner.post("/you/second-factor/", {"code": code(ada), "password": PASSWORD}).status_code == 200


def test_the_password_alone_is_not_enough_to_sign_in(ada: Any) -> None:
    enable(ada)
    client = Client()
    assert enter_password(client, "/you/").headers["Location"] == "/sign-in/code/"
    assert not is_signed_in(client)
    assert client.post("/sign-in/code/", {"code": "000000"}).status_code == 422
    assert not is_signed_in(client)
    answer = client.post("/sign-in/code/", {"code": code(ada)})
    assert answer.headers["Location"] == "/you/"
    assert is_signed_in(client)


def test_a_code_works_once_and_invalidates_older_ones(ada: Any) -> None:
    enable(ada)
    clients = Client(), Client(), Client()
    for client in clients:
        enter_password(client)
    newest, older = code(ada, 1), code(ada)
    assert clients[0].post("/sign-in/code/", {"code": newest}).status_code == 302
    assert clients[1].post("/sign-in/code/", {"code": newest}).status_code == 422
    assert clients[2].post("/sign-in/code/", {"code": older}).status_code == 422


def test_a_recovery_code_works_once_in_any_spelling(ada: Any) -> None:
    codes = enable(ada)
    for spelled in (codes[0], codes[1].upper(), codes[2].replace("-", " ")):
        client = Client()
        enter_password(client)
        assert client.post("/sign-in/code/", {"code": spelled}).status_code == 302, spelled
    again = Client()
    enter_password(again)
    assert again.post("/sign-in/code/", {"code": codes[0]}).status_code == 422
    assert RecoveryCode.objects.count() == 7


def test_code_attempts_are_throttled_across_addresses(ada: Any) -> None:
    enable(ada)
    answers = []
    for number in range(11):
        client = Client(REMOTE_ADDR=f"203.0.113.{number}")
        enter_password(client)
        answers.append(client.post("/sign-in/code/", {"code": "000000"}).status_code)
    assert answers == [422] * 10 + [429]


def test_a_pending_login_expires_after_ten_minutes_or_when_the_password_changes(ada: Any) -> None:
    enable(ada)
    late, changed, gone = Client(), Client(), Client()
    for client in (late, changed, gone):
        enter_password(client)
    with patch("django.utils.timezone.now", return_value=timezone.now() + timedelta(minutes=11)):
        assert late.post("/sign-in/code/", {"code": code(ada)}).headers["Location"] == "/sign-in/"
    ada.set_password("another long one")
    ada.save()
    assert changed.post("/sign-in/code/", {"code": code(ada)}).headers["Location"] == "/sign-in/"
    ada.set_password(PASSWORD)
    ada.is_active = False
    ada.save()
    assert gone.post("/sign-in/code/", {"code": code(ada)}).headers["Location"] == "/sign-in/"


def test_a_code_without_a_password_is_redirected_to_sign_in(ada: Any) -> None:
    enable(ada)
    assert Client().post("/sign-in/code/", {"code": code(ada)}).headers["Location"] == "/sign-in/"


def signed_in(user: Any) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.mark.parametrize("path", ["off", "codes"])
def test_changing_2fa_needs_a_password_or_code(ada: Any, path: str) -> None:
    codes = enable(ada)
    client = signed_in(ada)
    assert client.post(f"/you/second-factor/{path}/", {"proof": "guess"}).status_code == 422
    assert client.post(f"/you/second-factor/{path}/", {}).status_code == 422
    assert two_factor.is_enabled(ada)
    assert RecoveryCode.objects.filter(digest=two_factor._digest(ada, codes[0])).exists()


@pytest.mark.parametrize("by", ["password", "code", "recovery code"])
def test_2fa_can_be_disabled_with_password_or_code(ada: Any, by: str) -> None:
    codes = enable(ada)
    proof = {"password": PASSWORD, "code": code(ada), "recovery code": codes[3]}[by]
    assert signed_in(ada).post("/you/second-factor/off/", {"proof": proof}).status_code == 302
    assert not two_factor.is_enabled(ada)
    assert enter_password().headers["Location"] == "/"
    assert AuditEntry.objects.filter(action="second_factor_off", actor="ada").exists()


def test_new_recovery_codes_invalidate_the_old_ones(ada: Any) -> None:
    old = enable(ada)
    page = signed_in(ada).post("/you/second-factor/codes/", {"proof": PASSWORD})
    assert page.text.count("<li><code>") == 10
    assert not two_factor.verify_code(ada, old[0])


def test_required_2fa_must_be_set_up_before_anything_else(ada: Any, settings: Any) -> None:
    settings.REQUIRE_SECOND_FACTOR = True
    client = Client()
    assert enter_password(client, "/doctor/").headers["Location"] == "/sign-in/second-factor/"
    assert not is_signed_in(client)
    assert client.get("/sign-in/second-factor/").status_code == 200
    assert client.post("/sign-in/second-factor/", {"code": "000000"}).status_code == 422
    page = client.post("/sign-in/second-factor/", {"code": code(ada)})
    assert page.status_code == 200
    assert 'href="/doctor/"' in page.text
    assert is_signed_in(client)
    assert client.post("/you/second-factor/off/", {"proof": PASSWORD}).status_code == 302
    assert two_factor.is_enabled(ada)


def test_an_administrator_resets_2fa_by_command(ada: Any, capsys: Any) -> None:
    enable(ada)
    client = signed_in(ada)
    call_command("reset_second_factor", "ada")
    assert "signs in with the password alone" in capsys.readouterr().out
    assert not is_signed_in(client)
    assert enter_password().headers["Location"] == "/"
    assert AuditEntry.objects.get(action="reset_second_factor").via == "command"
    assert not OpenSession.objects.filter(user_id=ada.pk).exclude(address="127.0.0.1").exists()


def test_the_secret_is_stored_encrypted_and_not_shown_once_enabled(ada: Any) -> None:
    enable(ada)
    secret = SecondFactor.objects.get().secret
    with connection.cursor() as cursor:
        cursor.execute("SELECT secret FROM dashboard_secondfactor")
        assert secret not in str(cursor.fetchall())
    client = signed_in(ada)
    assert secret not in client.get("/you/").text
    assert client.get("/you/second-factor/").headers["Location"] == "/you/"
