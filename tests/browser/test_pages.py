"""Pages in a real browser: filters without a reload, keyboard use, no scripts, narrow screens and colors."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]
MODELS = "/accounts/local/models/"
PAGES = ["", "services/", "models/", "assets/", "manifests/", "images/", "operations/", "models/new/", "services/new/"]
SignIn = Callable[..., Page]


def register(page: Page, *names: str) -> None:
    for name in names:
        page.goto(f"{MODELS}new/")
        page.get_by_label("Name").fill(name)
        page.locator("input[name=url]").fill("https://models.example/m.pkl")
        page.get_by_role("button", name="Register").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text(name)


def test_typing_filters_the_list_and_the_back_button_undoes_it(sign_in: SignIn) -> None:
    page = sign_in("fay", "scientist")
    register(page, "filter-one", "filter-two")
    page.goto(MODELS)
    page.evaluate("window.here = true")
    page.get_by_role("searchbox").press_sequentially("filter-two")
    expect(page).to_have_url(re.compile(r"\?q=filter-two$"))
    expect(page.locator("#list tbody tr")).to_have_count(1)
    assert page.evaluate("window.here"), "the page was reloaded"
    page.go_back()
    expect(page.locator("#list")).to_contain_text("filter-one")


def test_a_filter_chip_can_be_used_with_the_keyboard(sign_in: SignIn) -> None:
    page = sign_in("fay", "scientist")
    page.goto(MODELS)
    page.get_by_role("searchbox").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(page).to_have_url(re.compile("state=ready"))


def test_a_refreshed_row_keeps_the_keyboard_focus(sign_in: SignIn) -> None:
    page = sign_in("fay", "scientist")
    register(page, "focus-kept")
    page.goto(f"{MODELS}?q=focus-kept")
    link = page.get_by_role("link", name="focus-kept")
    link.focus()
    page.evaluate("document.querySelector('#list tbody tr').dataset.old = 'yes'")
    page.evaluate("htmx.trigger('#list tbody tr', 'refresh')")
    expect(page.locator("#list tbody tr[data-old]")).to_have_count(0)
    expect(link).to_be_focused()


def test_lists_filter_sort_and_paginate_without_scripts(sign_in: SignIn) -> None:
    register(sign_in("fay", "scientist"), "plain-one", "plain-two")
    page = sign_in("nora", "viewer", java_script_enabled=False)
    page.goto(MODELS)
    page.get_by_role("searchbox").fill("plain-two")
    page.get_by_role("button", name="Apply filters").click()
    expect(page.locator("#list tbody tr")).to_have_count(1)
    page.get_by_role("link", name="Name", exact=True).click()
    expect(page).to_have_url(re.compile(r"q=plain-two&sort=name"))


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_no_page_is_wider_than_a_narrow_screen(colours: str, sign_in: SignIn) -> None:
    page = sign_in("fay", "scientist", viewport={"width": 390, "height": 844}, color_scheme=colours)
    for path in PAGES:
        page.goto(f"/accounts/local/{path}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path


def test_colors_follow_the_system_until_the_user_selects_a_theme(sign_in: SignIn) -> None:
    page = sign_in("fay", "scientist", color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.get_by_role("button", name="Theme: system").click()
    page.get_by_role("button", name="Light").click()
    expect(page.get_by_role("button", name="Theme: light")).to_be_visible()
    assert page.evaluate(ground) != dark


def test_the_keyboard_skips_the_navigation(sign_in: SignIn) -> None:
    page = sign_in("fay", "scientist")
    page.goto(MODELS)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
