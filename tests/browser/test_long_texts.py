"""Long names and texts in a real browser: no column is pushed off the page, and details show the whole."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import PASSWORD, people
from tests.site import Site

pytestmark = [pytest.mark.browser, pytest.mark.slow]
ADD = """
from django.utils import timezone
from deployments.models import HostingAccount, Image, Manifest, Operation, RegisteredModel, Service
place = dict(subscription="s", resource_group="g", hosting_account="a", base_url="http://127.0.0.1:1")
account, _ = HostingAccount.objects.get_or_create(name="long", defaults=place)
new = dict(account=account, seen_at=timezone.now(), created_by="p" * 150)
model = RegisteredModel.objects.create(mms_id="m", name="n" * 255, description="x" * 512, tags=["t" * 200], **new)
manifest = Manifest.objects.create(mms_id="f" * 200, description="x" * 512, runtime_type="Python", **new)
manifest.models.add(model)
image = Image.objects.create(mms_id="i" * 200, description="x" * 512, manifest=manifest, **new)
health = dict(health="unhealthy", health_detail="x" * 4000, state="S" * 64)
Service.objects.create(mms_id="s" * 200, name="n" * 255, image=image, **health, **new)
Service.objects.create(mms_id="other", name="o" * 255, image=image, state="S" * 64, **new)
row = RegisteredModel.objects.create(account=account, name="n" * 32, created_by="p" * 150)
Operation.objects.create(
    account=account, kind="register_model", state="failed", requested_by="p" * 150, model=row,
    error_message="x" * 4000, error_details=[{"target": "T" * 300, "message": "x" * 4000}],
)
"""
LISTS = ["", "models/", "manifests/", "images/", "services/", "operations/"]


def test_long_texts_push_no_column_off_the_page(site: Site, sign_in: Callable[..., Page]) -> None:
    site.manage("shell", "-v0", "-c", ADD)
    site.manage("create_user", "lou", "--role", "viewer", "--account", "long", "--password-stdin", stdin=PASSWORD)
    people.add("lou")
    page = sign_in("lou", "viewer")
    for width in (1440, 390):
        page.set_viewport_size({"width": width, "height": 900})
        details: set[str] = set()
        for path in LISTS:
            page.goto(f"/accounts/long/{path}")
            details |= set(page.eval_on_selector_all("#list tbody th a", "links => links.map(link => link.pathname)"))
            assert_it_fits(page, path)
        assert len(details) > 5
        for path in details:
            page.goto(path)
            assert_it_fits(page, path)
    page.goto("/accounts/long/services/")
    page.locator("#list tbody th a").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile("n{255}|o{255}"))


def assert_it_fits(page: Page, path: str) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
    wide = "all => all.filter(one => one.scrollWidth > one.clientWidth).map(one => one.innerText)"
    assert not page.eval_on_selector_all(".table-wrap", wide), path
