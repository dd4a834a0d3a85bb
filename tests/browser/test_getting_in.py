"""Sign-in and sign-out with a real browser, a real site and a real identity provider."""

import re
import sqlite3
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from dashboard.auth.two_factor import STEP_SECONDS, totp_code
from tests.conftest import chromium
from tests.doubles.identity_provider import CLIENT, Provider, running
from tests.site import Site

pytestmark = [pytest.mark.browser, pytest.mark.slow]
PASSWORD = "a phrase for tests"
FAR = "203.0.113.77"


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with running() as provider:
        provider.person("s-nina", preferred_username="nina", groups=["ml-team"])
        yield provider


@pytest.fixture(scope="module")
def company(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Start a site with sign-in through the provider and a trusted proxy on this machine."""
    roles = "ml-team=local:scientist"
    environment = provider.settings(OIDC_ROLES=roles, TRUSTED_PROXIES="127.0.0.1", LOG_LEVEL="DEBUG")
    site = Site(tmp_path_factory.mktemp("company") / "var", **environment)
    site.start()
    site.manage("create_user", "ada", "--role", "viewer", "--account", "local", "--password-stdin", stdin=PASSWORD)
    yield site
    site.stop()


@pytest.fixture
def page(browser: Browser, company: Site) -> Iterator[Page]:
    context = browser.new_context(base_url=company.url)
    complaints: list[str] = []
    page = context.new_page()
    page.on("console", lambda message: complaints.append(message.text) if "Content Security" in message.text else None)
    yield page
    context.close()
    assert not complaints


def audit(site: Site, action: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(site.data / "db.sqlite3") as database:
        query = "SELECT actor, address, result, after FROM dashboard_auditentry WHERE action = ? ORDER BY id"
        return database.execute(query, [action]).fetchall()


def by_password(page: Page, name: str = "ada") -> None:
    page.goto("/sign-in/")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()


def test_signing_in_through_the_provider_returns_to_the_requested_page(page: Page, company: Site) -> None:
    page.goto("/accounts/local/models/")
    page.get_by_role("link", name="Sign in with The Company").click()
    page.locator("input[name=sub]").fill("s-nina")
    page.get_by_role("button", name="Authorize").click()
    page.wait_for_url("**/accounts/local/models/")
    expect(page.get_by_role("link", name="Register model")).to_be_visible()
    page.goto("/you/")
    expect(page.get_by_text("From a group of the identity provider")).to_be_visible()
    assert audit(company, "sign_in")[-1][0] == "nina"
    logs = "".join(log.read_text() for log in (company.data / "log").glob("*.log"))  # at DEBUG
    assert [word for word in (CLIENT["OIDC_CLIENT_SECRET"], "code_verifier") if word in logs] == []


def test_a_sign_in_canceled_at_the_provider_is_reported(page: Page) -> None:
    page.goto("/sign-in/")
    page.get_by_role("link", name="Sign in with The Company").click()
    page.get_by_role("button", name="Deny").click()
    expect(page.get_by_role("heading", name="The Company refused your sign-in")).to_be_visible()


@pytest.fixture
def remembering(browser: Browser, company: Site) -> Iterator[Page]:
    """Return a page of a browser with the back/forward cache, which Playwright disables by default."""
    running = browser.browser_type.launch(
        executable_path=chromium(), args=["--no-sandbox"], ignore_default_args=["--disable-back-forward-cache"]
    )
    yield running.new_page(base_url=company.url)
    running.close()


def test_after_sign_out_the_back_button_shows_no_page(remembering: Page) -> None:
    page = remembering
    by_password(page)
    page.wait_for_url("**/accounts/local/")
    page.goto("/accounts/local/models/")
    page.goto("/you/")
    page.locator("[popovertarget=person-menu]").click()
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/sign-in/")
    for _ in range(3):
        page.evaluate("history.back()")
        page.wait_for_timeout(700)
        expect(page.get_by_label("Password")).to_be_visible()
        assert re.findall("Signed in as|Sessions|ada", page.inner_text("body")) == []
    assert page.evaluate("Object.keys(localStorage).length + Object.keys(sessionStorage).length") == 0


def test_an_open_page_is_signed_out_when_its_session_ends(browser: Browser, page: Page, company: Site) -> None:
    by_password(page)
    page.wait_for_url("**/accounts/local/")
    page.goto("/accounts/local/models/")
    elsewhere = browser.new_context(base_url=company.url)
    other = elsewhere.new_page()
    by_password(other)
    other.wait_for_url("**/accounts/local/")
    other.goto("/you/")
    other.get_by_role("button", name="End all other sessions").click()
    expect(other.get_by_text("All your other sessions have ended.")).to_be_visible()
    elsewhere.close()
    page.get_by_role("link", name="Images").click()
    page.wait_for_url("**/sign-in/?next=/accounts/local/images/")


def test_two_factor_authentication_can_be_enabled_and_is_then_required(page: Page, company: Site) -> None:
    company.manage("create_user", "tess", "--role", "viewer", "--account", "local", "--password-stdin", stdin=PASSWORD)
    by_password(page, "tess")
    page.wait_for_url("**/accounts/local/")
    page.goto("/you/")
    page.get_by_role("link", name="Turn on two-factor authentication").click()
    picture = page.get_by_role("img", name="QR code for an authenticator app")
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.complete && image.naturalWidth > 50")
    page.get_by_text("Enter the key manually").click()
    secret = page.locator("details code").inner_text()
    page.get_by_label("Code").fill(totp_code(secret, int(time.time()) // STEP_SECONDS - 1))
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Turn on two-factor authentication").click()
    expect(page.get_by_role("heading", name="Your recovery codes")).to_be_visible()
    recovery = page.locator(".codes code").first.inner_text()
    page.context.clear_cookies()
    by_password(page, "tess")
    page.get_by_label("Code").fill(totp_code(secret, int(time.time()) // STEP_SECONDS))
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/accounts/local/")
    page.context.clear_cookies()
    by_password(page, "tess")
    page.get_by_label("Code").fill(recovery)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/accounts/local/")
    assert secret not in "".join(log.read_text() for log in (company.data / "log").glob("*.log"))


def fail(site: Site, **headers: str) -> requests.Response:
    session = requests.Session()
    session.get(f"{site.url}/sign-in/")
    form = {"username": "eve", "password": "guess", "csrfmiddlewaretoken": session.cookies["csrftoken"]}
    return session.post(f"{site.url}/sign-in/", form, headers=headers)


def test_only_a_trusted_proxy_can_set_the_client_address(company: Site, site: Site) -> None:
    assert fail(company, **{"X-Forwarded-For": f"198.51.100.1, {FAR}"}).status_code == 422
    assert audit(company, "sign_in_failed")[-1][:2] == ("eve", FAR)
    assert fail(site, **{"X-Forwarded-For": FAR}).status_code == 422
    assert audit(site, "sign_in_failed")[-1][:2] == ("eve", "127.0.0.1")


@pytest.mark.parametrize("path", ["/", "/sign-in/", "/accounts/local/models/", "/healthz", "/no-such"])
def test_an_unknown_host_gets_an_error_with_advice(site: Site, path: str) -> None:
    answer = requests.get(f"{site.url}{path}", headers={"Host": "evil.example"}, allow_redirects=False)
    assert answer.status_code == 400
    assert "evil.example" in answer.text
    assert "ALLOWED_HOSTS" in answer.text


@pytest.mark.parametrize("path", ["/stream", "/uploads/?account=local", "/static/style.css"])
def test_parts_in_front_of_django_also_reject_an_unknown_host(site: Site, path: str) -> None:
    answer = requests.post(f"{site.url}{path}", headers={"Host": "evil.example"})
    assert answer.status_code == 400
    assert "evil.example" in answer.text
    assert "ALLOWED_HOSTS" in answer.text
