"""Access to pages: every URL of the site for every kind of user."""

import re
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse

from dashboard.access.permissions import Permission, required_level, required_role
from tests.support.doors import OF_AN_ACCOUNT, VIEWS, address, permission_of
from tests.support.people import Cast, Lab, make_cast, make_lab
from tests.support.workshop import sign_in

pytestmark = pytest.mark.django_db
PEOPLE = {"viewer": 1, "scientist": 2, "operator": 3, "admin": 4}


@pytest.fixture
def lab(live_redis: Any) -> Lab:
    return make_lab()


@pytest.fixture
def cast(lab: Lab) -> Cast:
    return make_cast(lab.account)


def visit(client: Client, url: str) -> Any:
    answer = client.get(url)
    return client.post(url) if answer.status_code == 405 else answer


@pytest.mark.parametrize("name", sorted(VIEWS))
def test_every_view_declares_who_may_use_it(name: str) -> None:
    known = {*Permission, "operator of any account", "signed in", "anyone"}
    assert permission_of(name) in known, f"{name} declares no permission"


@pytest.mark.parametrize("name", OF_AN_ACCOUNT)
def test_signed_out_users_are_redirected_to_sign_in_and_back(name: str, lab: Lab, cast: Cast) -> None:
    answer = visit(cast.anonymous, address(name, lab))
    assert answer.status_code == 302
    assert answer.headers["Location"].startswith("/sign-in/?next=/")


@pytest.mark.parametrize("name", OF_AN_ACCOUNT)
def test_an_account_is_invisible_to_non_members(name: str, lab: Lab, cast: Cast) -> None:
    url = address(name, lab)
    answer = visit(cast.stranger, url)
    assert answer.status_code == 404
    nowhere = visit(cast.stranger, url.replace("/lab/", "/no-such/", 1))
    without_names = [re.sub(r'lab|no-such|[\w-]{60,}|data-now="\d+"', "", page.text) for page in (answer, nowhere)]
    assert without_names[0] == without_names[1]


@pytest.mark.parametrize("name", OF_AN_ACCOUNT)
def test_members_get_what_their_role_allows_or_see_the_required_role(name: str, lab: Lab, cast: Cast) -> None:
    permission: Permission = permission_of(name)
    own = name != "delete_service"  # which has no owner here and a test of its own
    for person, level in PEOPLE.items():
        answer = visit(cast.everybody()[person], address(name, lab))
        if level < required_level(permission):
            assert answer.status_code == 403, (person, name)
            assert f"“{required_role(permission)}”" in answer.text
        elif own:
            assert answer.status_code < 500, (person, name)
            assert answer.status_code not in {401, 403}, (person, name)


@pytest.mark.parametrize("person", ["viewer", "scientist", "anonymous"])
def test_the_status_of_the_site_is_for_operators(person: str, lab: Lab, cast: Cast) -> None:
    answer = cast.everybody()[person].get("/doctor/")
    if person == "anonymous":
        assert answer.headers["Location"] == "/sign-in/?next=/doctor/"
    else:
        assert answer.status_code == 403
        assert "“Operator”" in answer.text
    assert "lab" not in re.sub(r"aria-label\w*|label", "", answer.text)


def test_rows_of_another_account_are_not_found_through_your_own(lab: Lab, cast: Cast) -> None:
    for noun in ("model", "asset", "manifest", "image", "service", "operation"):
        pk = getattr(lab, noun).pk
        assert cast.stranger.get(reverse(f"get_{noun}", args=["elsewhere", pk])).status_code == 404


def test_an_htmx_request_after_the_session_ended_redirects_the_whole_page(lab: Lab) -> None:
    here = "http://testserver/accounts/lab/models/?q=iris"
    answer = Client().get("/accounts/lab/models/", headers={"HX-Request": "true", "HX-Current-URL": here})
    assert answer.status_code == 200
    assert answer.headers["HX-Redirect"] == "/sign-in/?next=/accounts/lab/models/%3Fq%3Diris"


@pytest.mark.parametrize("here", ["https://evil.example/accounts/lab/", "javascript:alert(1)", "//evil.example/x"])
def test_the_sign_in_redirect_never_points_to_another_site(here: str, lab: Lab) -> None:
    answer = Client().get("/accounts/lab/", headers={"HX-Request": "true", "HX-Current-URL": here})
    assert answer.headers["HX-Redirect"] == "/sign-in/?next=/"


def test_a_form_sent_after_the_session_ended_redirects_back_to_its_page(lab: Lab) -> None:
    came_from = {"Referer": "http://testserver/accounts/lab/services/"}
    answer = Client().post(f"{lab.url}refresh/", headers=came_from)
    assert answer.headers["Location"] == "/sign-in/?next=/accounts/lab/services/"


def test_pages_are_not_cached(lab: Lab, cast: Cast) -> None:
    answer = cast.viewer.get(f"{lab.url}models/")
    assert "no-store" in answer.headers["Cache-Control"]
    assert "HX-Request" in answer.headers["Vary"]


def test_a_user_without_accounts_sees_whom_to_contact(db: None) -> None:
    page = sign_in("nina").get("/")
    assert "you aren’t a member of any hosting account" in page.text
    assert "add <strong>nina</strong> under" in page.text


def test_the_first_page_is_the_account_used_last(lab: Lab, cast: Cast) -> None:
    assert cast.admin.get("/").headers["Location"] == "/accounts/elsewhere/"
    cast.admin.get(lab.url)
    assert cast.admin.get("/").headers["Location"] == "/accounts/lab/"


def test_sign_in_redirects_to_the_requested_page(lab: Lab) -> None:
    get_user_model().objects.create_superuser("root", password="a long enough one")
    browser = Client()
    wrong = browser.post("/sign-in/", {"username": "root", "password": "guess", "next": lab.url})
    assert "Please enter a correct" in wrong.text
    right = browser.post("/sign-in/", {"username": "root", "password": "a long enough one", "next": lab.url})
    assert right.headers["Location"] == lab.url
    assert browser.get(lab.url).status_code == 200
    assert browser.post("/sign-out/").headers["Location"] == "/sign-in/"
    assert browser.get(lab.url).status_code == 302


def test_the_theme_is_stored_and_the_redirect_stays_on_this_site(lab: Lab, cast: Cast) -> None:
    answer = cast.viewer.post("/colours/", {"theme": "dark", "next": "https://evil.example/"})
    assert answer.headers["Location"] == "/"
    assert 'data-theme="dark"' in cast.viewer.get(f"{lab.url}models/").text
    cast.viewer.post("/colours/", {"theme": "system", "next": lab.url})
    assert 'data-theme="system"' in cast.viewer.get(f"{lab.url}models/").text


@pytest.mark.parametrize(
    "next_page", ["a\0b", "abc", "http://[::1", "http://testserver//evil.example/", "/\\evil.example"]
)
def test_an_invalid_next_url_redirects_home(next_page: str, lab: Lab, cast: Cast) -> None:
    for form, home in (("/colours/", "/"), (f"{lab.url}refresh/", lab.url)):
        assert cast.viewer.post(form, {"next": next_page}).headers["Location"] == home
    get_user_model().objects.create_superuser("root", password="a long enough one")
    entrance = {"username": "root", "password": "a long enough one", "next": next_page}
    for answer in (Client().post("/sign-in/", entrance), cast.viewer.get("/sign-in/", {"next": next_page})):
        assert answer.headers["Location"] == "/"
