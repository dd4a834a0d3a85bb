"""No default password, and a stranger who comes first cannot become administrator."""

import stat

import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.test import Client

from dashboard.auth import setup_link

pytestmark = pytest.mark.django_db
User = get_user_model()
GOOD = {"username": "ada", "password1": "correct horse battery", "password2": "correct horse battery"}


@pytest.fixture
def path():
    """The path of a fresh link."""
    link = setup_link.create()
    assert link
    yield link.removeprefix(settings.SITE_URL)
    setup_link.revoke()


def test_the_link_makes_one_administrator_and_signs_them_in(client: Client, path) -> None:
    assert client.get(path).status_code == 200
    answer = client.post(path, GOOD)
    assert answer.status_code == 302
    ada = User.objects.get()
    assert ada.is_superuser
    assert client.session["_auth_user_id"] == str(ada.pk)


def test_the_link_works_once(client: Client, path) -> None:
    client.post(path, GOOD)
    assert Client().get(path).status_code == 404
    assert Client().post(path, {**GOOD, "username": "eve"}).status_code == 404
    assert User.objects.count() == 1


def test_a_guessed_link_is_no_link(client: Client, path) -> None:
    guessed = path[:-3] + ("aa/" if not path.endswith("aa/") else "bb/")
    assert client.get(guessed).status_code == 404
    assert client.post(guessed, GOOD).status_code == 404
    assert not User.objects.exists()


def test_the_next_start_makes_the_old_link_void(client: Client, path) -> None:
    setup_link.create()
    answer = client.get(path)
    assert answer.status_code == 404
    assert "the terminal shows a new link" in " ".join(answer.text.split())


def test_there_is_no_link_once_somebody_can_sign_in(client: Client, path) -> None:
    User.objects.create_user("bob", password="correct horse battery")
    assert client.get(path).status_code == 404
    assert setup_link.create() is None


def test_two_people_with_the_same_link_make_one_administrator(path) -> None:
    assert [setup_link.revoke(), setup_link.revoke()] == [True, False]


def test_a_weak_password_is_refused_and_the_link_stays(client: Client, path) -> None:
    answer = client.post(path, {**GOOD, "password1": "password12", "password2": "password12"})
    assert answer.status_code == 422
    assert b"too common" in answer.content
    assert client.get(path).status_code == 200
    assert not User.objects.exists()


def test_a_terminal_is_given_the_link() -> None:
    assert f"{settings.SITE_URL}/set-up/" in setup_link.startup_message(on_terminal=True)


def test_a_log_is_told_the_command_and_every_older_link_is_void(client: Client, path) -> None:
    text = setup_link.startup_message(on_terminal=False)
    assert "manage.py create_user NAME --role admin" in text
    assert "http" not in text
    assert client.get(path).status_code == 404


def test_nobody_is_invited_once_somebody_can_sign_in() -> None:
    User.objects.create_user("bob", password="correct horse battery")
    assert setup_link.startup_message(on_terminal=True) == setup_link.startup_message(on_terminal=False) == ""


def test_only_a_hash_of_the_token_is_kept_and_only_for_the_owner(path) -> None:
    file = settings.RUN_DIR / "first-sign-in"
    assert path.split("/")[2] not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
