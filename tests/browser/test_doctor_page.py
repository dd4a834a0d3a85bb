"""The status page in a real browser: it refreshes automatically and fits a narrow screen."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]
SignIn = Callable[..., Page]


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_an_operator_is_directed_to_a_page_that_fits_a_narrow_screen(colours: str, sign_in: SignIn) -> None:
    page = sign_in("olga", "operator", viewport={"width": 390, "height": 844}, color_scheme=colours)
    page.get_by_role("button", name="Signed in as olga").click()
    page.get_by_role("link", name="System status").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("System status")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_page_refreshes_automatically_without_a_reload(sign_in: SignIn) -> None:
    page = sign_in("olga", "operator")
    page.goto("/doctor/")
    page.evaluate("window.here = true")
    for _ in range(2):  # the second refresh comes from the timer, not from the new connection of the stream
        page.evaluate("document.getElementById('findings').dataset.old = 'yes'")
        expect(page.locator("#findings[data-old]")).to_have_count(0, timeout=20_000)
    assert page.evaluate("window.here"), "the page was reloaded"


def test_the_page_is_complete_without_scripts(sign_in: SignIn) -> None:
    page = sign_in("olga", "operator", java_script_enabled=False)
    page.goto("/doctor/")
    expect(page.get_by_role("region", name="Passed checks")).to_contain_text("database")
