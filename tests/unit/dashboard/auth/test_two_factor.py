"""The second factor: codes of an app, recovery codes, and who may switch it off."""

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


def password(client: Client | None = None, to: str = "") -> Any:
    return (client or Client()).post("/sign-in/", {"username": "ada", "password": PASSWORD, "next": to})


def code(user: Any, later: int = 0) -> str:
    """What the app shows so many steps later."""
    secret = SecondFactor.objects.get(user=user).secret
    return two_factor.totp_code(secret, int(time.time()) // two_factor.STEP_SECONDS + later)


def switched_on(user: Any) -> list[str]:
    factor = two_factor.pending_secret(user)
    codes = two_factor.enable(factor, code(user, -1))
    assert codes
    return codes


def is_in(client: Client) -> bool:
    return client.get("/you/").status_code == 200


def test_codes_are_those_of_the_standard() -> None:
    """RFC 6238, appendix B (its codes have eight digits: the last six of them)."""
    secret = base64.b32encode(b"12345678901234567890").decode()
    known = {59: "287082", 1111111109: "081804", 1234567890: "005924", 20000000000: "353130"}
    assert {at: two_factor.totp_code(secret, at // 30) for at in known} == known


def test_it_is_switched_on_with_the_password_and_a_first_code(ada: Any) -> None:
    client = Client()
    password(client)
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


def test_whoever_saw_what_an_earlier_page_showed_knows_nothing(ada: Any) -> None:
    thief, owner = entered(ada), entered(ada)
    thief.get("/you/second-factor/")
    seen = code(ada)
    owner.get("/you/second-factor/")
    assert owner.post("/you/second-factor/", {"code": seen, "password": PASSWORD}).status_code == 422
    assert owner.post("/you/second-factor/", {"code": code(ada), "password": PASSWORD}).status_code == 200


def test_the_password_alone_lets_nobody_in(ada: Any) -> None:
    switched_on(ada)
    client = Client()
    assert password(client, "/you/").headers["Location"] == "/sign-in/code/"
    assert not is_in(client)
    assert client.post("/sign-in/code/", {"code": "000000"}).status_code == 422
    assert not is_in(client)
    answer = client.post("/sign-in/code/", {"code": code(ada)})
    assert answer.headers["Location"] == "/you/"
    assert is_in(client)


def test_a_code_is_taken_once_and_none_that_is_older(ada: Any) -> None:
    switched_on(ada)
    clients = Client(), Client(), Client()
    for client in clients:
        password(client)
    newest, older = code(ada, 1), code(ada)
    assert clients[0].post("/sign-in/code/", {"code": newest}).status_code == 302
    assert clients[1].post("/sign-in/code/", {"code": newest}).status_code == 422
    assert clients[2].post("/sign-in/code/", {"code": older}).status_code == 422


def test_a_recovery_code_is_taken_once_however_it_is_written(ada: Any) -> None:
    codes = switched_on(ada)
    for spelled in (codes[0], codes[1].upper(), codes[2].replace("-", " ")):
        client = Client()
        password(client)
        assert client.post("/sign-in/code/", {"code": spelled}).status_code == 302, spelled
    again = Client()
    password(again)
    assert again.post("/sign-in/code/", {"code": codes[0]}).status_code == 422
    assert RecoveryCode.objects.count() == 7


def test_guessing_codes_is_slow_from_everywhere(ada: Any) -> None:
    switched_on(ada)
    answers = []
    for number in range(11):
        client = Client(REMOTE_ADDR=f"203.0.113.{number}")
        password(client)
        answers.append(client.post("/sign-in/code/", {"code": "000000"}).status_code)
    assert answers == [422] * 10 + [429]


def test_the_right_password_is_good_for_ten_minutes_and_only_as_long_as_it_is_right(ada: Any) -> None:
    switched_on(ada)
    late, changed, gone = Client(), Client(), Client()
    for client in (late, changed, gone):
        password(client)
    with patch("django.utils.timezone.now", return_value=timezone.now() + timedelta(minutes=11)):
        assert late.post("/sign-in/code/", {"code": code(ada)}).headers["Location"] == "/sign-in/"
    ada.set_password("another long one")
    ada.save()
    assert changed.post("/sign-in/code/", {"code": code(ada)}).headers["Location"] == "/sign-in/"
    ada.set_password(PASSWORD)
    ada.is_active = False
    ada.save()
    assert gone.post("/sign-in/code/", {"code": code(ada)}).headers["Location"] == "/sign-in/"


def test_nobody_gives_a_code_without_a_password(ada: Any) -> None:
    switched_on(ada)
    assert Client().post("/sign-in/code/", {"code": code(ada)}).headers["Location"] == "/sign-in/"


def entered(user: Any) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.mark.parametrize("path", ["off", "codes"])
def test_a_session_left_open_is_not_enough_to_change_it(ada: Any, path: str) -> None:
    codes = switched_on(ada)
    client = entered(ada)
    assert client.post(f"/you/second-factor/{path}/", {"proof": "guess"}).status_code == 422
    assert client.post(f"/you/second-factor/{path}/", {}).status_code == 422
    assert two_factor.is_enabled(ada)
    assert RecoveryCode.objects.filter(digest=two_factor._digest(ada, codes[0])).exists()


@pytest.mark.parametrize("by", ["password", "code", "recovery code"])
def test_it_is_switched_off_with_password_or_code(ada: Any, by: str) -> None:
    codes = switched_on(ada)
    proof = {"password": PASSWORD, "code": code(ada), "recovery code": codes[3]}[by]
    assert entered(ada).post("/you/second-factor/off/", {"proof": proof}).status_code == 302
    assert not two_factor.is_enabled(ada)
    assert password().headers["Location"] == "/"
    assert AuditEntry.objects.filter(action="second_factor_off", actor="ada").exists()


def test_new_recovery_codes_make_the_old_ones_void(ada: Any) -> None:
    old = switched_on(ada)
    page = entered(ada).post("/you/second-factor/codes/", {"proof": PASSWORD})
    assert page.text.count("<li><code>") == 10
    assert not two_factor.verify_code(ada, old[0])


def test_where_it_is_required_nothing_else_comes_before_it(ada: Any, settings: Any) -> None:
    settings.REQUIRE_SECOND_FACTOR = True
    client = Client()
    assert password(client, "/doctor/").headers["Location"] == "/sign-in/second-factor/"
    assert not is_in(client)
    assert client.get("/sign-in/second-factor/").status_code == 200
    assert client.post("/sign-in/second-factor/", {"code": "000000"}).status_code == 422
    page = client.post("/sign-in/second-factor/", {"code": code(ada)})
    assert page.status_code == 200
    assert 'href="/doctor/"' in page.text
    assert is_in(client)
    assert client.post("/you/second-factor/off/", {"proof": PASSWORD}).status_code == 302
    assert two_factor.is_enabled(ada)


def test_an_administrator_takes_it_away_by_command(ada: Any, capsys: Any) -> None:
    switched_on(ada)
    client = entered(ada)
    call_command("reset_second_factor", "ada")
    assert "signs in with the password alone" in capsys.readouterr().out
    assert not is_in(client)
    assert password().headers["Location"] == "/"
    assert AuditEntry.objects.get(action="reset_second_factor").via == "command"
    assert not OpenSession.objects.filter(user_id=ada.pk).exclude(address="127.0.0.1").exists()


def test_the_secret_lies_encrypted_and_is_in_no_page_once_it_is_on(ada: Any) -> None:
    switched_on(ada)
    secret = SecondFactor.objects.get().secret
    with connection.cursor() as cursor:
        cursor.execute("SELECT secret FROM dashboard_secondfactor")
        assert secret not in str(cursor.fetchall())
    client = entered(ada)
    assert secret not in client.get("/you/").text
    assert client.get("/you/second-factor/").headers["Location"] == "/you/"
