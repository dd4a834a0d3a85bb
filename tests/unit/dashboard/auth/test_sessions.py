"""Sessions end: unused, in any case, and when somebody ends them."""

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


def enter(address: str = "198.51.100.1", **headers: str) -> Client:
    client = Client(REMOTE_ADDR=address, headers={"User-Agent": FIREFOX} | headers)
    answer = client.post("/sign-in/", {"username": "ada", "password": PASSWORD})
    assert answer.status_code == 302
    return client


def is_in(client: Client) -> bool:
    return client.get("/you/").status_code == 200


def test_an_unused_session_ends(ada: Any, settings: Any) -> None:
    client = enter()
    OpenSession.objects.update(expire_date=timezone.now() + timedelta(seconds=-1))
    assert not is_in(client)


def test_being_used_is_noted_now_and_then_and_never_beyond_the_longest_time(ada: Any) -> None:
    client = enter()
    with CaptureQueriesContext(
        connection,
    ) as caught:
        assert is_in(client)
    assert not [query for query in caught if query["sql"].startswith("UPDATE")]
    OpenSession.objects.update(seen_at=timezone.now() - timedelta(minutes=6))
    assert is_in(client)
    row = OpenSession.objects.get()
    assert timezone.now() - row.seen_at < timedelta(minutes=1)
    assert timedelta(minutes=119) < row.expire_date - timezone.now() <= timedelta(minutes=120)
    old = timezone.now() - timedelta(hours=11, minutes=30)
    OpenSession.objects.update(started_at=old, seen_at=timezone.now() - timedelta(minutes=6))
    assert is_in(client)
    assert OpenSession.objects.get().expire_date == old + timedelta(hours=12)


def test_writing_the_session_does_not_make_it_last_longer(ada: Any) -> None:
    client = enter()
    session = client.session
    session[sessions.STARTED] = (timezone.now() - timedelta(hours=11, minutes=59)).timestamp()
    session.save()
    client.post("/you/sessions/end/")  # its message may be stored
    assert OpenSession.objects.get().expire_date < timezone.now() + timedelta(minutes=2)


def test_what_a_page_does_by_itself_does_not_keep_a_session_open(ada: Any) -> None:
    client = enter()
    before = timezone.now() - timedelta(minutes=50)
    OpenSession.objects.update(seen_at=before)
    client.get("/you/", headers={"Background": "1"})
    assert OpenSession.objects.get().seen_at == before


def test_the_page_you_shows_where_one_is_signed_in_and_no_key(ada: Any) -> None:
    client, other = enter(), enter("203.0.113.9")
    page = client.get("/you/").text
    assert page.count("Firefox on Linux") == 2
    assert "198.51.100.1" in page
    assert "203.0.113.9" in page
    for row in OpenSession.objects.all():
        assert row.session_key not in page
    assert is_in(other)


def test_another_session_can_be_ended_and_only_ones_own(ada: Any) -> None:
    mine, other = enter(), enter()
    eve = get_user_model().objects.create_user("eve")
    stranger = Client()
    stranger.force_login(eve)
    row = OpenSession.objects.get(session_key=other.session.session_key)
    assert stranger.post(f"/you/sessions/{sessions.public_id(row)}/end/").status_code == 404
    assert mine.post(f"/you/sessions/{sessions.public_id(row)}/end/").status_code == 302
    assert not is_in(other)
    assert is_in(mine)
    assert AuditEntry.objects.filter(action="end_session", actor="ada").exists()


def test_all_others_can_be_ended_at_once(ada: Any) -> None:
    mine, *others = enter(), enter(), enter()
    mine.post("/you/sessions/end/")
    assert [is_in(client) for client in (mine, *others)] == [True, False, False]


def test_another_password_ends_all_other_sessions_and_is_asked_for_the_old_one(ada: Any) -> None:
    mine, other = enter(), enter()
    new = {"new_password1": "entirely different", "new_password2": "entirely different"}
    wrong = mine.post("/you/password/", {"old_password": "guess", **new})
    assert wrong.status_code == 422
    weak = mine.post("/you/password/", {"old_password": PASSWORD, "new_password1": "1", "new_password2": "1"})
    assert weak.status_code == 422
    assert mine.post("/you/password/", {"old_password": PASSWORD, **new}).status_code == 302
    assert [is_in(mine), is_in(other)] == [True, False]
    ada.refresh_from_db()
    assert ada.check_password("entirely different")
    assert AuditEntry.objects.get(action="change_password").after == {"password": "changed"}


def test_a_session_left_open_is_no_place_to_guess_the_password(ada: Any) -> None:
    mine = enter()
    new = {"old_password": "guess", "new_password1": "entirely different", "new_password2": "entirely different"}
    assert [mine.post("/you/password/", new).status_code for _ in range(6)] == [422] * 5 + [429]


def test_a_session_that_was_ended_is_not_brought_back_by_a_page_on_its_way(ada: Any) -> None:
    client = enter()
    OpenSession.objects.update(seen_at=timezone.now() - timedelta(minutes=6))
    row = OpenSession.objects.get()
    OpenSession.objects.all().delete()
    sessions._record_use(row)
    assert not OpenSession.objects.exists()
    assert not is_in(client)
