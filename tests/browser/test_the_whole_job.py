"""The whole workflow by mouse and keyboard, from a file to a scoring URL and back, with live state changes."""

import json
import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import SECONDS
from tests.site import ROOT

pytestmark = [pytest.mark.browser, pytest.mark.slow]
IRIS = ROOT / "examples" / "iris"
BUILD = 180 * SECONDS  # the first build downloads the requirements
QUICK = 30 * SECONDS


def go_to(page: Page, noun: str) -> None:
    page.get_by_role("navigation", name="Resources").get_by_role("link", name=noun, exact=True).click()


def pick(page: Page, label: str) -> None:
    """Select the row of a picker by its visible text."""
    page.locator(".pick label", has_text=label).first.click()


def stay(page: Page) -> None:
    """Wait for a detail page and mark its document. A reload would remove the mark."""
    expect(page).to_have_url(re.compile(r"/[a-z]+/[0-9a-f-]+/$"))
    page.wait_for_load_state()
    page.evaluate("window.neverReloaded = true")


def expect_state(page: Page, word: str, timeout: float) -> None:
    """Wait until the badge of the page's row shows `word`, without a reload."""
    expect(page.locator(".page-head .badge").first).to_have_text(re.compile(word), timeout=timeout)
    assert page.evaluate("window.neverReloaded") is True


def upload(page: Page, file: str) -> None:
    page.get_by_label("Upload a file").set_input_files(IRIS / file)
    expect(page.locator("#stored-name")).to_have_text(file)


def register_model(page: Page) -> None:
    go_to(page, "Models")
    page.get_by_role("link", name=re.compile("Register (the first )?model")).first.click()
    upload(page, "model.pkl")
    page.get_by_label("Name").fill("iris")
    page.get_by_label("Tags").fill("flowers, example")
    expect(page.locator("#preview-json")).to_contain_text('"name": "iris"')
    expect(page.locator("#preview-json")).not_to_contain_text(re.compile("key=[0-9a-f]"))
    page.get_by_role("button", name="Register model").click()
    stay(page)
    expect_state(page, "Registered", QUICK)


def add_asset(page: Page, file: str, name: str) -> None:
    go_to(page, "Assets")
    page.get_by_role("link", name=re.compile("Add (the first )?asset")).first.click()
    upload(page, file)
    expect(page.get_by_label("Asset id")).to_have_value(name)
    page.get_by_label("Asset id").press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(name)


def create_manifest(page: Page) -> None:
    go_to(page, "Models")
    page.get_by_role("link", name="iris").first.click()
    page.get_by_role("link", name="Create manifest").click()
    page.get_by_label("Search assets").press_sequentially("schema")
    expect(page.locator("#rows-assets .pick")).to_have_count(1)
    pick(page, "schema")
    page.get_by_label("Search assets").fill("")
    pick(page, "score")
    expect(page.get_by_label("driver", exact=True).first).to_be_visible()
    expect(page.locator("#preview-json")).to_contain_text('"driverProgram": "score"')
    page.get_by_label("Requirements").fill((IRIS / "requirements.txt").read_text())
    page.get_by_label("Description").fill("iris with its schema")
    expect(page.locator("#preview-json")).to_contain_text("iris with its schema")
    page.get_by_role("button", name="Create manifest").click()
    stay(page)
    expect_state(page, "Created", QUICK)


def create_image(page: Page) -> None:
    page.get_by_role("link", name="Build image").click()
    page.get_by_label("Description").fill("iris image")
    page.get_by_role("button", name="Build image").click()
    stay(page)
    expect_state(page, "Built", BUILD)


def create_service(page: Page) -> None:
    page.get_by_role("link", name="Deploy service").click()
    page.get_by_label("Service name").fill("iris-live")
    page.keyboard.press("Enter")
    stay(page)
    expect_state(page, "Healthy", QUICK)


def score(page: Page) -> None:
    """Submit the prefilled example of the schema by keyboard, then an invalid input."""
    go_to(page, "Services")
    page.get_by_role("link", name="iris-live").first.click()
    body = page.get_by_label("Request body (JSON)")
    expect(body).to_have_value(re.compile("5.1"))
    assert json.loads(body.input_value()) == {"data": [[5.1, 3.5, 1.4, 0.2], [6.3, 2.9, 5.6, 1.8]]}
    page.get_by_role("button", name="Send request").press("Enter")
    expect(page.locator(".answer-head")).to_contain_text("200 OK")
    expect(page.locator("#answer-text")).to_contain_text("setosa")
    body.fill('{"data": 1}')
    page.get_by_role("button", name="Send request").click()
    expect(page.locator(".answer-head")).not_to_contain_text("200")
    page.get_by_role("link", name="Insert example").click()
    expect(body).to_have_value(re.compile("5.1"))


def update_service(page: Page) -> None:
    """Build a second image of the same manifest, then switch to it."""
    go_to(page, "Manifests")
    page.get_by_role("link", name="iris with its schema").first.click()
    page.get_by_role("link", name="Build image").click()
    page.get_by_label("Description").fill("second iris image")
    page.get_by_role("button", name="Build image").click()
    stay(page)
    expect_state(page, "Built", BUILD)
    go_to(page, "Services")
    page.get_by_role("link", name="iris-live").first.click()
    page.get_by_role("link", name="Update service", exact=True).click()
    pick(page, "second iris image")
    expect(page.locator("#changes")).to_contain_text("second iris image")
    page.get_by_role("button", name="Update service").click()
    stay(page)
    expect(page.locator("#panel")).to_contain_text("second iris image", timeout=QUICK)
    expect_state(page, "Healthy", QUICK)


def delete_service(page: Page) -> None:
    page.get_by_role("link", name="Delete service", exact=True).click()
    expect(page.locator(".facts")).to_contain_text("iris v1")
    page.get_by_role("button", name="Delete service").click()
    stay(page)
    expect_state(page, "Succeeded", QUICK)
    go_to(page, "Services")
    expect(page.get_by_role("link", name="iris-live")).to_have_count(0)


def test_the_whole_workflow_by_mouse_and_keyboard(sign_in: Callable[..., Page]) -> None:
    page = sign_in("sam", "scientist")
    register_model(page)
    add_asset(page, "score.py", "score")
    add_asset(page, "schema.json", "schema")
    create_manifest(page)
    create_image(page)
    create_service(page)
    score(page)
    update_service(page)
    delete_service(page)
