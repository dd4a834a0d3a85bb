"""The one-time set-up link: no default password, and no administrator access for the first visitor."""

import stat
from collections.abc import Iterator

import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.test import Client

from dashboard.auth import setup_link

pytestmark = pytest.mark.django_db
User = get_user_model()
GOOD = {"username": "ada", "password1": "correct horse battery", "password2": "correct horse battery"}


@pytest.fixture
def path() -> Iterator[str]:
    """Return the path of a new link."""
    link = setup_link.create()
    assert link
    yield link.removeprefix(settings.SITE_URL)
    setup_link.revoke()


def test_the_link_creates_one_administrator_and_signs_them_in(client: Client, path: str) -> None:
    assert client.get(path).status_code == 200
    answer = client.post(path, GOOD)
    assert answer.status_code == 302
    ada = User.objects.get()
    assert ada.is_superuser
    assert client.session["_auth_user_id"] == str(ada.pk)


def test_the_link_works_once(client: Client, path: str) -> None:
    client.post(path, GOOD)
    assert Client().get(path).status_code == 404
    assert Client().post(path, {**GOOD, "username": "eve"}).status_code == 404
    assert User.objects.count() == 1


def test_a_guessed_link_is_not_found(client: Client, path: str) -> None:
    guessed = path[:-3] + ("aa/" if not path.endswith("aa/") else "bb/")
    assert client.get(guessed).status_code == 404
    assert client.post(guessed, GOOD).status_code == 404
    assert not User.objects.exists()


def test_the_next_start_revokes_the_old_link(client: Client, path: str) -> None:
    setup_link.create()
    answer = client.get(path)
    assert answer.status_code == 404
    assert "the terminal shows a new link" in " ".join(answer.text.split())


def test_there_is_no_link_once_a_user_exists(client: Client, path: str) -> None:
    User.objects.create_user("bob", password="correct horse battery")
    assert client.get(path).status_code == 404
    assert setup_link.create() is None


def test_two_people_with_the_same_link_create_one_administrator(path: str) -> None:
    assert [setup_link.revoke(), setup_link.revoke()] == [True, False]


def test_a_weak_password_is_rejected_and_the_link_stays_valid(client: Client, path: str) -> None:
    answer = client.post(path, {**GOOD, "password1": "password12", "password2": "password12"})
    assert answer.status_code == 422
    assert b"too common" in answer.content
    assert client.get(path).status_code == 200
    assert not User.objects.exists()


def test_the_link_is_shown_on_a_terminal() -> None:
    assert f"{settings.SITE_URL}/set-up/" in setup_link.startup_message(on_terminal=True)


def test_a_log_shows_the_command_instead_and_older_links_are_revoked(client: Client, path: str) -> None:
    text = setup_link.startup_message(on_terminal=False)
    assert "manage.py create_user NAME --role admin" in text
    assert "http" not in text
    assert client.get(path).status_code == 404


def test_the_startup_message_is_empty_once_a_user_exists() -> None:
    User.objects.create_user("bob", password="correct horse battery")
    assert setup_link.startup_message(on_terminal=True) == setup_link.startup_message(on_terminal=False) == ""


def test_only_a_hash_of_the_token_is_stored_and_only_the_owner_can_read_it(path: str) -> None:
    file = settings.RUN_DIR / "first-sign-in"
    assert path.split("/")[2] not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
