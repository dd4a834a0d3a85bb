"""API tokens and commands in a browser: creating, copying, and commands beside a form while it is filled in."""

import re
from collections.abc import Callable

import pytest
import requests
from playwright.sync_api import Page, expect

from tests.site import Site

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_a_token_is_created_copied_and_used(sign_in: Callable[..., Page], site: Site) -> None:
    page = sign_in("sam", "scientist", permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Signed in as sam").click()
    page.get_by_role("link", name="API tokens").click()
    page.get_by_label("Name").fill("from a browser")
    page.get_by_role("button", name="Create token").click()
    token = page.locator("#made-token").inner_text()
    page.locator("#made").get_by_role("button", name="Copy").click()
    expect(page.locator("#made").get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == token
    answer = requests.get(f"{site.url}/v1/accounts/", headers={"Authorization": f"Bearer {token}"}, timeout=20)
    assert answer.json()["accounts"][0]["name"] == "local"
    page.get_by_role("button", name="Revoke from a browser").first.click()
    expect(page.get_by_text("Revoked")).to_be_visible()
    expect(page.locator("#made-token")).to_have_count(0)
    answer = requests.get(f"{site.url}/v1/accounts/", headers={"Authorization": f"Bearer {token}"}, timeout=20)
    assert answer.status_code == 401


def test_the_command_follows_the_form_and_stays_open(sign_in: Callable[..., Page]) -> None:
    page = sign_in("sam", "scientist")
    page.goto("/accounts/local/models/new/")
    page.get_by_text("API call").click()
    page.get_by_label("Or enter its URL").fill("https://models.example/rose.pkl")
    page.get_by_label("Name", exact=True).fill("rose")
    curl = page.locator("#command-curl")
    expect(curl).to_contain_text(re.compile('"name": "rose"'))
    page.get_by_label("Tags").fill("flowers")
    expect(curl).to_contain_text("flowers")
    expect(curl).to_be_visible()
    expect(page.locator("button[data-copy='#command-curl']")).to_be_visible()
