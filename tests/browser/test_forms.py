"""Forms in a real browser: pickers, running uploads, failures with their reason, and use without scripts."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import SECONDS
from tests.site import ROOT

pytestmark = [pytest.mark.browser, pytest.mark.slow]
IRIS = ROOT / "examples" / "iris"
NEW_MODEL = "/accounts/local/models/new/"
NEW_ASSET = "/accounts/local/assets/new/"
NEW_MANIFEST = "/accounts/local/manifests/new/"


def register(page: Page, name: str) -> None:
    page.goto(NEW_MODEL)
    page.get_by_label("Or enter its URL").fill(f"https://models.example/{name}.pkl")
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Register model").click()
    expect(page.locator(".page-head .badge").first).to_have_text(re.compile("Registered"), timeout=30 * SECONDS)


def test_a_form_is_submitted_when_its_upload_finishes(sign_in: Callable[..., Page], tmp_path: Path) -> None:
    big = tmp_path / "weights.tar.gz"
    big.write_bytes(b"w" * 40_000_000)
    page = sign_in("sam", "scientist")
    page.goto(NEW_MODEL)
    page.get_by_label("Upload a file").set_input_files(big)
    page.get_by_label("Name").fill("weights")
    page.get_by_role("button", name="Register model").click()
    expect(page).to_have_url(re.compile(r"/models/\d+/$"), timeout=30 * SECONDS)
    expect(page.get_by_role("heading", level=1)).to_contain_text("weights")


def test_an_upload_can_be_stopped_and_removed(sign_in: Callable[..., Page], tmp_path: Path) -> None:
    page = sign_in("sam", "scientist")
    page.goto(NEW_MODEL)
    page.get_by_label("Upload a file").set_input_files(IRIS / "model.pkl")
    expect(page.locator("#stored-name")).to_have_text("model.pkl")
    expect(page.get_by_label("Name")).to_have_value("model")
    expect(page.get_by_label("Or enter its URL")).to_be_hidden()
    page.get_by_role("button", name="Remove").click()
    expect(page.get_by_label("Upload a file")).to_be_focused()
    expect(page.locator("#preview")).to_contain_text("Upload a file or enter its URL")
    empty = tmp_path / "empty.bin"
    empty.touch()
    page.get_by_label("Upload a file").set_input_files(empty)
    expect(page.locator("#upload-error")).to_have_text("The file is empty.")


def test_models_can_be_picked_with_only_the_keyboard(sign_in: Callable[..., Page]) -> None:
    page = sign_in("sam", "scientist")
    register(page, "keys-one")
    register(page, "keys-two")
    page.goto(NEW_MANIFEST)
    page.get_by_label("Search models").focus()
    page.keyboard.type("keys-two")
    page.keyboard.press("Enter")
    expect(page.locator("#rows-models .pick")).to_have_count(1)
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    picked = page.locator("#rows-models .picked .pick-label")
    expect(picked).to_have_text("keys-two v1")
    expect(page.locator("#rows-models .picked input")).to_be_focused()
    page.get_by_label("Search models").fill("keys-one")
    page.locator(".pick label", has_text="keys-one").click()
    expect(picked).to_have_count(2)
    expect(page.locator("#preview-json")).to_contain_text("modelIds")
    assert page.url.endswith(NEW_MANIFEST)


def test_a_failed_build_shows_its_reason_first_and_can_be_cloned_and_retried(sign_in: Callable[..., Page]) -> None:
    page = sign_in("sam", "scientist")
    for path in (NEW_MODEL, NEW_ASSET):
        page.goto(path)
        file = "model.pkl" if path == NEW_MODEL else "score.py"
        content = b"def init():\n    pass\n"  # a driver without run()
        page.get_by_label("Upload a file").set_input_files({"name": file, "mimeType": "text/plain", "buffer": content})
        expect(page.locator("#stored-name")).to_have_text(file)
        page.locator("#id_name").fill("doomed")
        page.locator("#main-form button.primary").click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("doomed")
    page.goto(f"{NEW_MANIFEST}?models-q=")
    for noun in ("models", "assets"):
        page.get_by_label(f"Search {noun}").fill("doomed")
        page.locator(f"#rows-{noun} .pick label", has_text="doomed").first.click()
        expect(page.locator(f"#rows-{noun} .picked").first).to_be_visible()
    page.get_by_role("button", name="Create manifest").click()
    expect(page.locator(".page-head .badge").first).to_have_text(re.compile("Created"), timeout=30 * SECONDS)
    page.get_by_role("link", name="Build image").click()
    page.get_by_role("button", name="Build image").click()
    expect(page.locator(".page-head .badge").first).to_have_text(re.compile("Failed"), timeout=60 * SECONDS)
    expect(page.get_by_label("Failure")).to_contain_text("run()")
    page.get_by_role("button", name="Retry").first.click()
    expect(page).to_have_url(re.compile("/operations/"))
    expect(page.locator(".page-head .badge").first).to_have_text(re.compile("Failed"), timeout=60 * SECONDS)
    page.get_by_role("link", name="View log", exact=True).first.click()
    expect(page.locator("#log")).to_contain_text("run()", timeout=30 * SECONDS)
    page.go_back()
    page.get_by_role("link", name="Clone and edit").first.click()
    expect(page.locator("#rows-manifest .picked")).to_be_visible()


def test_errors_are_shown_beside_their_fields_and_a_second_attempt_works(sign_in: Callable[..., Page]) -> None:
    page = sign_in("sam", "scientist")
    page.goto(NEW_MODEL)
    page.get_by_label("Or enter its URL").fill("https://models.example/fine.pkl")
    page.get_by_label("Name").fill("not_fine")
    page.get_by_label("Name").press("Enter")
    expect(page.locator("#form-errors")).to_be_focused()
    expect(page.get_by_label("Name")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Name").fill("fine")
    page.get_by_label("Name").press("Enter")
    expect(page).to_have_url(re.compile(r"/models/\d+/$"))


def test_a_viewer_sees_which_role_is_required(sign_in: Callable[..., Page]) -> None:
    page = sign_in("vera", "viewer")
    page.goto(NEW_MODEL)
    expect(page.locator("main")).to_contain_text("Data scientist")


def test_the_forms_work_without_javascript(sign_in: Callable[..., Page]) -> None:
    page = sign_in("sam", "scientist", java_script_enabled=False)
    page.goto(NEW_MODEL)
    page.get_by_label("Upload a file").set_input_files(IRIS / "model.pkl")
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(page.locator("#stored-name")).to_have_text("model.pkl")
    page.get_by_label("Name").fill("plain")
    page.get_by_role("button", name="Preview").click()
    expect(page.locator("#preview-json")).to_contain_text("key=…")
    page.get_by_role("button", name="Register model").click()
    expect(page).to_have_url(re.compile(r"/models/\d+/$"))
    for _ in range(20):  # the page isn't live, so reload it
        page.reload()
        if "Registered" in page.locator(".page-head .badge").first.inner_text():
            break
        page.wait_for_timeout(0.5 * SECONDS)
    page.goto(NEW_MANIFEST)
    page.get_by_label("Search models").fill("plain")
    page.locator("#picker-models").get_by_role("button", name="Search").click()
    page.locator("#rows-models .pick label", has_text="plain").first.click()
    page.get_by_role("button", name="Create manifest").click()
    expect(page).to_have_url(re.compile(r"/manifests/\d+/$"))
