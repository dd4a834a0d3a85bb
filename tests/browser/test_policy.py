"""The browser's own judgement: on no page does anything break the content security policy, or a script."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from tests.site import Site

pytestmark = pytest.mark.browser
PAGES = (
    "",
    "services/",
    "models/",
    "models/new/",
    "assets/new/",
    "manifests/new/",
    "images/new/",
    "services/new/",
    "operations/",
    "roles/",
    "members/",
    "settings/",
    "settings/registries/",
    "settings/clusters/new/",
)


@pytest.mark.slow
def test_no_page_breaks_its_own_policy(site: Site, sign_in: Callable[..., Page]) -> None:
    page = sign_in("olga", "operator")  # and fails at the end where the browser complained of anything
    for path in (*(f"/accounts/local/{name}" for name in PAGES), "/audit/", "/doctor/"):
        answer = page.goto(path)
        assert answer
        assert answer.status == 200, path
        page.wait_for_load_state("load")
