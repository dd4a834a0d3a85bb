"""Content security policy in a real browser: no page violates it or has a script error."""

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
def test_no_page_violates_its_content_security_policy(site: Site, sign_in: Callable[..., Page]) -> None:
    page = sign_in("olga", "operator")  # fails at the end if the browser reported a problem
    for path in (*(f"/accounts/local/{name}" for name in PAGES), "/audit/", "/doctor/"):
        answer = page.goto(path)
        assert answer
        assert answer.status == 200, path
        page.wait_for_load_state("load")
