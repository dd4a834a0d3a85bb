"""Account settings in a browser: connection tests on the page, and secrets that never come back."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.doubles.kubernetes import TOKEN, Kubernetes

pytestmark = [pytest.mark.browser, pytest.mark.slow]
SETTINGS = "/accounts/local/settings/"


def test_the_connection_is_tested_on_the_page_with_the_stored_token(sign_in: Callable[..., Page]) -> None:
    page = sign_in("otto", "operator")
    page.get_by_role("link", name="Settings").click()
    page.get_by_label("Resource group").fill("elsewhere")
    page.get_by_role("button", name="Test connection").click()
    expect(page.locator("#connection-test")).to_contain_text("Connection failed.")
    page.get_by_label("Resource group").fill("local")
    page.get_by_role("button", name="Test connection").click()
    expect(page.locator("#connection-test")).to_contain_text("Connection works.")
    assert page.url.endswith(SETTINGS), "the page must not change"


def test_only_the_fields_of_the_selected_sign_in_method_are_shown(sign_in: Callable[..., Page]) -> None:
    page = sign_in("otto", "operator")
    page.goto(SETTINGS)
    expect(page.get_by_label("Client secret")).to_be_hidden()
    page.get_by_label("Sign-in").select_option("entra")
    expect(page.get_by_label("Client secret")).to_be_visible()
    expect(page.get_by_label("Bearer token")).to_be_hidden()


def test_a_cluster_is_tested_and_stored_and_its_kubeconfig_is_never_shown(sign_in: Callable[..., Page]) -> None:
    page = sign_in("otto", "operator", viewport={"width": 390, "height": 800})
    with Kubernetes() as cluster:
        page.goto(f"{SETTINGS}clusters/new/")
        page.get_by_label("Name").fill("browser cluster")
        page.get_by_label("Kubeconfig").fill(cluster.kubeconfig())
        page.get_by_label("Pull secret").fill("acr")
        page.get_by_label("Production").check()
        page.get_by_role("button", name="Test connection").click()
        expect(page.locator("#connection-test")).to_contain_text("Kubernetes v1.31.2")
        page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("row", name="browser cluster")).to_contain_text("production")
    page.get_by_role("link", name="browser cluster").click()
    expect(page.get_by_text("by otto")).to_be_visible()
    assert TOKEN not in page.content()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing may be wider than the screen"
    page.get_by_role("link", name="Delete cluster…").click()
    page.get_by_role("button", name="Delete cluster").click()
    expect(page.get_by_text("Its services keep running")).to_be_visible()
