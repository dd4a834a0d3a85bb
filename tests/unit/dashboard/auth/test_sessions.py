"""Sessions expire when unused and after a maximum lifetime, and users can end them."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dashboard.auth import sessions
from dashboard.models import AuditEntry, OpenSession

pytestmark = pytest.mark.django_db
PASSWORD = "a long enough one"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


@pytest.fixture
def ada() -> Any:
    return get_user_model().objects.create_user("ada", password=PASSWORD)


def sign_in(address: str = "198.51.100.1", **headers: str) -> Client:
    client = Client(REMOTE_ADDR=address, headers={"User-Agent": FIREFOX} | headers)
    answer = client.post("/sign-in/", {"username": "ada", "password": PASSWORD})
    assert answer.status_code == 302
    return client


def is_signed_in(client: Client) -> bool:
    return client.get("/you/").status_code == 200


def test_an_unused_session_ends(ada: Any, settings: Any) -> None:
    client = sign_in()
    OpenSession.objects.update(expire_date=timezone.now() + timedelta(seconds=-1))
    assert not is_signed_in(client)


def test_use_extends_a_session_up_to_its_maximum_lifetime(ada: Any) -> None:
    client = sign_in()
    with CaptureQueriesContext(connection) as caught:
        assert is_signed_in(client)
    assert not [query for query in caught if query["sql"].startswith("UPDATE")]
    OpenSession.objects.update(seen_at=timezone.now() - timedelta(minutes=6))
    assert is_signed_in(client)
    row = OpenSession.objects.get()
    assert timezone.now() - row.seen_at < timedelta(minutes=1)
    assert timedelta(minutes=119) < row.expire_date - timezone.now() <= timedelta(minutes=120)
    old = timezone.now() - timedelta(hours=11, minutes=30)
    OpenSession.objects.update(started_at=old, seen_at=timezone.now() - timedelta(minutes=6))
    assert is_signed_in(client)
    assert OpenSession.objects.get().expire_date == old + timedelta(hours=12)


def test_saving_a_session_does_not_extend_it(ada: Any) -> None:
    client = sign_in()
    session = client.session
    session[sessions.STARTED] = (timezone.now() - timedelta(hours=11, minutes=59)).timestamp()
    session.save()
    client.post("/you/sessions/end/")  # its message may be stored
    assert OpenSession.objects.get().expire_date < timezone.now() + timedelta(minutes=2)


def test_background_requests_do_not_extend_a_session(ada: Any) -> None:
    client = sign_in()
    before = timezone.now() - timedelta(minutes=50)
    OpenSession.objects.update(seen_at=before)
    client.get("/you/", headers={"Background": "1"})
    assert OpenSession.objects.get().seen_at == before


def test_your_account_lists_sessions_without_their_keys(ada: Any) -> None:
    client, other = sign_in(), sign_in("203.0.113.9")
    page = client.get("/you/").text
    assert page.count("Firefox on Linux") == 2
    assert "198.51.100.1" in page
    assert "203.0.113.9" in page
    for row in OpenSession.objects.all():
        assert row.session_key not in page
    assert is_signed_in(other)


def test_users_can_end_only_their_own_sessions(ada: Any) -> None:
    mine, other = sign_in(), sign_in()
    eve = get_user_model().objects.create_user("eve")
    stranger = Client()
    stranger.force_login(eve)
    row = OpenSession.objects.get(session_key=other.session.session_key)
    assert stranger.post(f"/you/sessions/{sessions.public_id(row)}/end/").status_code == 404
    assert mine.post(f"/you/sessions/{sessions.public_id(row)}/end/").status_code == 302
    assert not is_signed_in(other)
    assert is_signed_in(mine)
    assert AuditEntry.objects.filter(action="end_session", actor="ada").exists()


def test_all_other_sessions_can_be_ended_together(ada: Any) -> None:
    mine, *others = sign_in(), sign_in(), sign_in()
    mine.post("/you/sessions/end/")
    assert [is_signed_in(client) for client in (mine, *others)] == [True, False, False]


def test_changing_the_password_needs_the_old_one_and_ends_all_other_sessions(ada: Any) -> None:
    mine, other = sign_in(), sign_in()
    new = {"new_password1": "entirely different", "new_password2": "entirely different"}
    wrong = mine.post("/you/password/", {"old_password": "guess", **new})
    assert wrong.status_code == 422
    weak = mine.post("/you/password/", {"old_password": PASSWORD, "new_password1": "1", "new_password2": "1"})
    assert weak.status_code == 422
    assert mine.post("/you/password/", {"old_password": PASSWORD, **new}).status_code == 302
    assert [is_signed_in(mine), is_signed_in(other)] == [True, False]
    ada.refresh_from_db()
    assert ada.check_password("entirely different")
    assert AuditEntry.objects.get(action="change_password").after == {"password": "changed"}


def test_guessing_the_password_in_an_open_session_is_throttled(ada: Any) -> None:
    mine = sign_in()
    new = {"old_password": "guess", "new_password1": "entirely different", "new_password2": "entirely different"}
    assert [mine.post("/you/password/", new).status_code for _ in range(6)] == [422] * 5 + [429]


def test_recording_use_does_not_restore_an_ended_session(ada: Any) -> None:
    client = sign_in()
    OpenSession.objects.update(seen_at=timezone.now() - timedelta(minutes=6))
    row = OpenSession.objects.get()
    OpenSession.objects.all().delete()
    sessions._record_use(row)
    assert not OpenSession.objects.exists()
    assert not is_signed_in(client)
