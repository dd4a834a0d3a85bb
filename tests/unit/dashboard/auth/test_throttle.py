"""Signing in by password: guessing is slow, for every name alike, and nobody is locked out by a stranger."""

import re
import statistics
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django.utils import timezone

from dashboard.auth import throttle
from dashboard.models import AuditEntry, SignInTry

pytestmark = pytest.mark.django_db
PASSWORD = "a long enough one"
FAR = "203.0.113.7"


@pytest.fixture
def ada() -> Any:
    return get_user_model().objects.create_user("ada", password=PASSWORD)


def attempt(name: str, password: str = "guess", address: str = FAR, client: Client | None = None) -> Any:
    return (client or Client()).post("/sign-in/", {"username": name, "password": password}, REMOTE_ADDR=address)


def test_a_wrong_password_is_a_form_with_an_error(ada: Any) -> None:
    answer = attempt("ada")
    assert answer.status_code == 422
    assert "Please enter a correct" in answer.text


def test_the_sixth_wrong_try_is_not_looked_at_and_says_how_long_to_wait(ada: Any) -> None:
    assert [attempt("ada").status_code for _ in range(5)] == [422] * 5
    answer = attempt("ada", PASSWORD)
    assert answer.status_code == 429
    assert 0 < int(answer.headers["Retry-After"]) <= 300
    assert "again in 5 minutes" in answer.text


def test_waiting_helps_even_when_somebody_kept_trying(ada: Any) -> None:
    for _ in range(9):
        attempt("ada")
    SignInTry.objects.update(at=timezone.now() - timedelta(minutes=5, seconds=1))
    assert attempt("ada", PASSWORD).status_code == 302


def test_a_right_password_forgets_the_wrong_ones_before_it(ada: Any) -> None:
    for _ in range(4):
        attempt("ada")
    assert attempt("ada", PASSWORD).status_code == 302
    assert not SignInTry.objects.exists()


def test_known_unknown_inactive_and_odd_names_are_answered_alike(ada: Any) -> None:
    get_user_model().objects.create_user("gone", password=PASSWORD, is_active=False)
    get_user_model().objects.create_user("by-provider", password=None)
    pages = set()
    for name in ("ada", "nobody", "gone", "by-provider", "ADA"):
        answers = [attempt(name, PASSWORD if name == "gone" else "guess") for _ in range(6)]
        assert [answer.status_code for answer in answers] == [422] * 5 + [429], name
        pages |= {re.sub(rf'value="({name}|[\w-]{{60,}})"|data-now="\d+"', "", answers[0].text)}
        SignInTry.objects.all().delete()
    assert len(pages) == 1


@pytest.mark.slow
@pytest.mark.serial
def test_an_unknown_name_takes_as_long_as_a_known_one(slow_hasher: None, ada: Any, settings: Any, record: Any) -> None:
    settings.SIGN_IN_TRIES = settings.SIGN_IN_TRIES_PER_NAME = settings.SIGN_IN_TRIES_PER_ADDRESS = 1000
    get_user_model().objects.create_user("gone", password=PASSWORD, is_active=False)
    get_user_model().objects.create_user("by-provider", password=None)
    took: dict[str, list[float]] = {"ada": [], "nobody": [], "gone": [], "by-provider": []}
    for _ in range(7):
        for name, times in took.items():
            begun = time.perf_counter()
            attempt(name)
            times.append(time.perf_counter() - begun)
    medians = {name: statistics.median(times) for name, times in took.items()}
    record |= {f"ms for {name}": round(1000 * median) for name, median in medians.items()}
    assert max(medians.values()) < 1.5 * min(medians.values()), (
        took
    )  # a hash that was left out would make a factor of ten


def test_a_stranger_does_not_lock_the_owner_out_of_a_browser_they_used_before(ada: Any, settings: Any) -> None:
    browser = Client()
    attempt("ada", PASSWORD, "198.51.100.1", browser)
    browser.post("/sign-out/")
    for number in range(settings.SIGN_IN_TRIES_PER_NAME + 5):
        attempt("ada", address=f"203.0.113.{number}")
    assert attempt("ada", PASSWORD, "198.51.100.2").status_code == 429
    assert attempt("ada", PASSWORD, "198.51.100.1", browser).status_code == 302


def test_the_mark_of_a_browser_is_good_for_its_own_name_and_few_tries(ada: Any) -> None:
    get_user_model().objects.create_user("eve", password=PASSWORD)
    browser = Client()
    attempt("eve", PASSWORD, client=browser)
    browser.post("/sign-out/")
    assert [attempt("eve", client=browser).status_code for _ in range(6)] == [422] * 5 + [429]
    assert [attempt("ada", client=browser).status_code for _ in range(6)] == [422] * 5 + [429]


def test_one_address_cannot_try_many_names(settings: Any) -> None:
    settings.SIGN_IN_TRIES_PER_ADDRESS = 8
    answers = [attempt(f"name-{number}", address="2001:db8::1").status_code for number in range(8)]
    assert answers == [422] * 8
    assert attempt("another", address="2001:db8:0:0:ffff::2").status_code == 429  # the same network of 64 bits
    assert attempt("another", address="2001:db8:0:1::1").status_code == 422


def test_a_name_is_kept_as_a_hash_only(ada: Any) -> None:
    attempt("my password by mistake")
    assert "mistake" not in str(SignInTry.objects.values_list())


@pytest.mark.django_db(transaction=True)
def test_tries_at_the_same_time_let_no_more_through() -> None:
    class Request:
        META = {"REMOTE_ADDR": FAR}
        COOKIES: dict[str, str] = {}

    got: list[Any] = []

    def go() -> None:
        try:
            got.append(throttle.start_attempt(Request(), "ada"))  # type: ignore[arg-type]
        finally:
            connection.close()

    threads = [threading.Thread(target=go) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 16
    assert sum(isinstance(outcome, SignInTry) for outcome in got) <= 5


def test_every_try_is_in_the_audit_by_the_name_given_and_without_a_password(ada: Any) -> None:
    attempt("ada", "my secret guess")
    client = Client()
    attempt("ada", PASSWORD, client=client)
    client.post("/sign-out/", REMOTE_ADDR=FAR)
    entries = list(AuditEntry.objects.order_by("pk").values_list("action", "actor", "address", "result"))
    assert entries == [
        ("sign_in_failed", "ada", FAR, "refused"),
        ("sign_in", "ada", FAR, "done"),
        ("sign_out", "ada", FAR, "done"),
    ]
    assert "guess" not in str(AuditEntry.objects.values_list())


def test_where_passwords_are_off_there_is_no_field_for_one(ada: Any, settings: Any) -> None:
    settings.PASSWORD_SIGN_IN = False
    assert 'name="password"' not in Client().get("/sign-in/").text
    assert attempt("ada", PASSWORD).status_code == 403


def test_sign_out_has_the_browser_forget(ada: Any) -> None:
    client = Client()
    attempt("ada", PASSWORD, client=client)
    answer = client.post("/sign-out/")
    assert answer.headers["Clear-Site-Data"] == '"cache", "storage"'
    assert client.get("/you/").status_code == 302


@pytest.mark.parametrize("to", ["https://evil.example/", "//evil.example", "javascript:alert(1)", "/\\evil.example"])
def test_after_signing_in_nobody_is_led_elsewhere(ada: Any, to: str) -> None:
    answer = Client().post("/sign-in/", {"username": "ada", "password": PASSWORD, "next": to})
    assert answer.headers["Location"] == "/"
