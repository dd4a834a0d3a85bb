"""Open pages without updates, which must not keep showing an outdated state as current."""

import time
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.site import Site
from tests.support.clock import quiet_seconds

pytestmark = [pytest.mark.browser, pytest.mark.slow]
SECONDS = 1000


def test_an_open_page_reports_a_missing_worker_within_thirty_seconds_and_recovers(
    sign_in: Callable[..., Page], site: Site
) -> None:
    page = sign_in("sam", "scientist")
    site.supervisorctl("stop", "site:worker")
    try:
        page.goto("/accounts/local/models/new/")
        page.get_by_label("Name").fill("untaken")
        page.get_by_label("Or enter its URL").fill("http://models.example/untaken.pkl")
        page.get_by_role("button", name="Register").click()
        page.wait_for_url("**/models/*/")
        asked = time.monotonic()
        page.evaluate("window.same = true")
        badge = page.locator("#panel [data-badge]").first
        expect(badge).to_have_text("Queued")
        expect(badge).to_have_text("Queued, no worker", timeout=32 * SECONDS)
        assert quiet_seconds(time.monotonic() - asked) < 30
        expect(page.locator("#panel").get_by_text("Check that the workers are running.")).to_be_visible()
    finally:
        site.supervisorctl("start", "site:worker")
    expect(badge).to_have_text("Registered", timeout=30 * SECONDS)
    assert page.evaluate("window.same")
