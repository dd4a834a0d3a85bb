"""Users created, invited, changed and deactivated by administrators."""

import re
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from dashboard.models import AuditEntry
from tests.support.people import Cast, Lab, make_cast, make_lab

pytestmark = pytest.mark.django_db
PASSWORD = "quite a long phrase"


@pytest.fixture
def lab(live_redis: Any) -> Lab:
    return make_lab()


@pytest.fixture
def cast(lab: Lab) -> Cast:
    return make_cast(lab.account)


def person(name: str) -> Any:
    return get_user_model().objects.get(username=name)


def link_in(page: str) -> str:
    found = re.search(r"(/choose-password/[^<\s]+)", page)
    assert found
    return found[1]


def choose(link: str, password: str = PASSWORD) -> Any:
    """Open the link in another browser and choose a password."""
    browser = Client()
    form = browser.get(link, follow=True)
    url = form.redirect_chain[-1][0] if form.redirect_chain else link
    return browser.post(url, {"new_password1": password, "new_password2": password}, follow=True)


def can_sign_in(name: str, password: str = PASSWORD) -> bool:
    return Client().post("/sign-in/", {"username": name, "password": password}).status_code == 302


def test_a_new_user_chooses_a_password_with_a_single_use_link(lab: Lab, cast: Cast) -> None:
    answer = cast.admin.post("/people/", {"username": "nina"})
    assert not person("nina").has_usable_password()
    link = link_in(answer.text)
    assert "no-store" in answer.headers["Cache-Control"]
    assert "Your password is set" in choose(link).text
    assert can_sign_in("nina")
    assert "This link is no longer valid" in choose(link, "another long phrase").text
    assert not can_sign_in("nina", "another long phrase")
    assert [(entry.actor, entry.action, entry.target) for entry in AuditEntry.objects.order_by("pk")][:2] == [
        ("ada", "add_person", "nina"),
        ("nina", "choose_password", "nina"),
    ]
    assert link.split("/")[3] not in str(list(AuditEntry.objects.values()))


def test_the_next_page_does_not_show_the_link_again(lab: Lab, cast: Cast) -> None:
    cast.admin.post("/people/", {"username": "nina"})
    assert "/choose-password/" not in cast.admin.get("/people/").text


def test_a_weak_password_is_refused_behind_the_link(lab: Lab, cast: Cast) -> None:
    link = link_in(cast.admin.post("/people/", {"username": "nina"}).text)
    answer = choose(link, "12345")
    assert "too short" in answer.text
    assert not can_sign_in("nina", "12345")


@pytest.mark.parametrize(("name", "says"), [("", "required"), ("SAM", "already taken"), ("a b", "valid username")])
def test_an_invalid_username_is_an_error_at_the_field(name: str, says: str, lab: Lab, cast: Cast) -> None:
    before = get_user_model().objects.count()
    answer = cast.admin.post("/people/", {"username": name})
    assert answer.status_code == 422
    assert says in answer.text
    assert get_user_model().objects.count() == before


def test_a_deactivated_user_is_signed_out_and_keeps_their_roles_when_reactivated(lab: Lab, cast: Cast) -> None:
    cast.admin.post(f"/people/{person('sam').pk}/", {"do": "deactivate"})
    assert cast.scientist.get(lab.url).status_code == 302
    cast.admin.post(f"/people/{person('sam').pk}/", {"do": "activate"})
    cast.scientist.force_login(person("sam"))
    assert cast.scientist.get(lab.url).status_code == 200
    entry = AuditEntry.objects.order_by("pk").first()
    assert entry is not None
    assert (entry.target, entry.before, entry.after) == ("sam", {"is_active": True}, {"is_active": False})


def test_administrator_access_is_granted_and_removed(lab: Lab, cast: Cast) -> None:
    cast.admin.post(f"/people/{person('stella').pk}/", {"do": "make_administrator"})
    assert cast.stranger.get(lab.url).status_code == 200
    cast.admin.post(f"/people/{person('stella').pk}/", {"do": "make_member"})
    assert cast.stranger.get(lab.url).status_code == 404


@pytest.mark.parametrize("asked", ["deactivate", "make_member"])
def test_administrators_cannot_remove_their_own_access(asked: str, lab: Lab, cast: Cast) -> None:
    answer = cast.admin.post(f"/people/{person('ada').pk}/", {"do": asked}, follow=True)
    assert "remove your own access" in answer.text
    assert person("ada").is_superuser
    assert person("ada").is_active
    assert AuditEntry.objects.get().result == "refused"


def test_an_unknown_action_changes_nothing(lab: Lab, cast: Cast) -> None:
    before = list(get_user_model().objects.values())
    assert "Choose an action" in cast.admin.post(f"/people/{person('sam').pk}/", {"do": "rule"}, follow=True).text
    assert cast.admin.post("/people/99999/", {"do": "deactivate"}).status_code == 404
    assert list(get_user_model().objects.exclude(username="ada").values()) == [
        row for row in before if row["username"] != "ada"
    ]


def test_users_are_found_by_name_and_shown_with_their_roles(lab: Lab, cast: Cast) -> None:
    page = cast.admin.get("/people/", {"q": "SAM"}).text
    assert "lab: Data scientist" in page
    assert "otto" not in page
    assert cast.operator.get("/people/").status_code == 403
