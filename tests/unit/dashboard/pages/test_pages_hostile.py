"""Text from people and servers never becomes markup or an unsafe link, and never breaks a page."""

from html.parser import HTMLParser
from typing import Any

import pytest
from django.test import Client

from dashboard.audit.record import record_entry
from deployments.models import HostingAccount
from deployments.models.operation import State
from tests.support.doors import VIEWS, address
from tests.support.people import Lab, make_cast, make_lab, make_operation

pytestmark = pytest.mark.django_db
EVIL = "\"><img src=x onerror=alert(1)>' hx-get='/evil' <script>alert(2)</script>{{ 7|add:7 }}{% now %}\u202e"
MARKS = ("<img", "<script>alert", "hx-get='/evil'", "{% now")


@pytest.fixture
def lab(live_redis: Any) -> Lab:
    lab = make_lab()
    for row in (lab.model, lab.manifest, lab.image, lab.service):
        row.description = row.created_by = EVIL
    lab.model.name = lab.service.name = lab.cluster.name = lab.registry.name = EVIL[:60]
    lab.asset.name = EVIL[:30]
    lab.asset.mime_type = lab.model.mime_type = EVIL
    lab.model.tags = [EVIL]
    lab.model.url = lab.asset.url = f"javascript:alert(1)//{EVIL}"
    lab.manifest.driver_program = lab.manifest.runtime_type = EVIL[:60]
    lab.manifest.asset_list = [{"id": EVIL, "url": f"data:text/html,{EVIL}", "mime_type": EVIL, "unpack": False}]
    lab.manifest.properties = {"pip_requirements": EVIL, "conda_env_file": EVIL, EVIL: EVIL}
    lab.image.digest = EVIL[:90]
    lab.image.registry_location = EVIL
    lab.service.state, lab.service.health, lab.service.health_detail = EVIL[:60], EVIL[:30], EVIL
    lab.service.scoring_uri = f"http://127.0.0.1:9/{EVIL}"
    lab.service.revisions = [{"number": EVIL, "state": EVIL, "detail": EVIL, "image_id": EVIL, "activated_at": EVIL}]
    lab.token.name = lab.token.last_used_from = EVIL[:60]
    lab.token.last_used_at = lab.token.expires_at
    changed = (lab.model, lab.asset, lab.manifest, lab.image, lab.cluster, lab.registry, lab.service, lab.token)
    for each in changed:
        each.save()
    details = [{"code": EVIL, "message": f"{EVIL}\n{EVIL}", "target": EVIL}, {"message": EVIL, "target": EVIL}]
    more: dict[str, Any] = {
        "error_code": EVIL[:90],
        "error_message": EVIL,
        "error_details": details,
        "requested_by": EVIL,
    }
    more["body"] = {"name": EVIL, "url": f"https://models.example/{EVIL}", "tags": [EVIL]}
    for row in (lab.model, lab.manifest, lab.image, lab.service):
        lab.operation = make_operation(row, state=State.FAILED, **more)
    HostingAccount.objects.filter(pk=lab.account.pk).update(error=EVIL)
    record_entry(EVIL, actor=EVIL, account_name=EVIL, target=EVIL, address=EVIL, before={EVIL: EVIL}, after={"a": EVIL})
    return lab


@pytest.fixture
def reader(lab: Lab) -> Client:
    return make_cast(lab.account).admin


class Reading(HTMLParser):
    """Parser that collects every tag and attribute as a browser sees them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


def pages(lab: Lab, reader: Client) -> dict[str, str]:
    """Return the HTML of every page that this user can open, by URL name."""
    found = {}
    for name in sorted(set(VIEWS) - {"sign_out"}):
        answer = reader.get(address(name, lab))
        if answer.status_code == 200 and answer.headers["Content-Type"].startswith("text/html"):
            found[name] = answer.text
    return found


@pytest.mark.slow
def test_hostile_text_stays_text_on_every_page(lab: Lab, reader: Client, record: Any) -> None:
    found = pages(lab, reader)
    assert len(found) > 25
    shown = [name for name, page in found.items() if "&lt;img src=x" in page]
    for name, page in found.items():
        assert not [mark for mark in MARKS if mark in page.replace("{% now %}", "")], name
    assert {"get_model", "get_service", "list_operations", "see_audit", "list_clusters", "account_home"} <= set(shown)
    record |= {"pages": len(found), "that show hostile text": len(shown)}


@pytest.mark.slow
def test_hostile_text_becomes_no_tag_attribute_or_unsafe_link(lab: Lab, reader: Client) -> None:
    for name, page in pages(lab, reader).items():
        read = Reading(page)
        assert "img" not in read.tags, name
        for attribute, value in read.attributes:
            assert not attribute.startswith("on"), (name, attribute)
            assert not attribute.startswith("sse-"), (name, attribute)
            if attribute in {"href", "src", "action", "formaction", "hx-get", "hx-post"}:
                assert value.startswith(("/", "#", "?", "http://", "https://")) or not value, (name, attribute, value)
                assert not value.startswith("//"), (name, attribute, value)
            if attribute in {"hx-get", "hx-post"}:
                assert value.startswith("/"), (name, attribute, value)
                assert "evil" not in value.partition("?")[0], (name, attribute, value)


def test_a_hostile_query_stays_text_and_keeps_the_page_up(lab: Lab, reader: Client) -> None:
    for name in ("q", "state", "sort", "page", "kind", "model", "newest"):
        page = reader.get(f"{lab.url}models/", {name: EVIL})
        assert page.status_code == 200
        assert "<img" not in page.text


@pytest.mark.parametrize("text", ["\x00", "%", "_", "\\", "'", "a" * 5000, "9" * 40])
def test_special_characters_in_a_search_are_taken_literally(text: str, lab: Lab, reader: Client) -> None:
    assert reader.get(f"{lab.url}models/", {"q": text}).status_code == 200
    assert reader.get(f"{lab.url}models/", {"page": text}).status_code == 200
    assert reader.get(f"{lab.url}services/", {"model": text}).status_code in {200, 404}
