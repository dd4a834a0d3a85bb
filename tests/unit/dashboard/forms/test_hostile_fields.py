"""Hostile values in every form and page address: no 5xx, and refused values aren't stored."""

import re
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from django.db import transaction
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from deployments.models import Service
from tests.support.doors import VIEWS, address
from tests.support.hostile import TEXTS, add, counts, tried
from tests.support.people import Lab, make_cast, make_lab
from tests.support.workshop import make_image

pytestmark = [pytest.mark.django_db, pytest.mark.slow]
# Excluded: forms that end the session, and forms that call the entered address, which have their own tests.
APART = {"sign_out", "test_server", "test_registry", "test_new_registry", "test_cluster", "test_new_cluster"}
# Fields of forms without their own page.
FIELDS = {
    "create_token": {"name": "x", "scope": "read", "account": "", "days": "7"},
    "change_member": {"role": "viewer"},
    "change_person": {"do": ""},
    "settle_operation": {"send_again": "no"},
    "choose_theme": {"theme": "dark", "next": "/"},
    "refresh": {"next": "/"},
}
NUMBERS = ("page", "model", "manifest", "image", "service", "asset")
QUERIES = (
    *NUMBERS,
    "q",
    "state",
    "sort",
    "kind",
    "newest",
    "clone",
    "part",
    "after",
    "download",
    "file",
    "name",
    "upload_error",
    "actor",
    "since",
    "until",
    "format",
    "next",
)


@pytest.fixture
def lab(live_redis: Any) -> Lab:
    lab = make_lab()
    Service.objects.update(scoring_uri="http://127.0.0.1:9/")  # where nothing listens
    return lab


@pytest.fixture
def other(lab: Lab) -> Lab:
    """Create another account, whose ids are tried in the first."""
    return make_lab("other")


@pytest.fixture
def admin(lab: Lab) -> Client:
    admin = make_cast(lab.account).admin
    admin.raise_request_exception = False
    return admin


def good(name: str, lab: Lab) -> dict[str, Any]:
    """Return valid fields if they are known, otherwise the initial fields of the page."""
    newer = make_image(lab.manifest)
    known: dict[str, dict[str, Any]] = {
        "register_model": {"name": "rose", "url": "https://a.example/x", "tags": "a, b", "mime_type": "a/b"},
        "add_asset": {"name": "rose", "url": "https://a.example/x"},
        "create_manifest": {
            "models": lab.model.pk,
            "assets": lab.asset.pk,
            "driver": lab.asset.pk,
            "runtime_type": "Python",
            "pip_requirements": "x",
        },
        "create_image": {"manifest": lab.manifest.pk, "registry": lab.registry.pk},
        "create_service": {"name": "new", "image": newer.pk, "cluster": lab.cluster.pk},
        "update_service": {"image": newer.pk},
        "test_service": {"body": "{}"},
        **FIELDS,
    }
    return known.get(name, {})


def fields_on(page: str) -> set[str]:
    found = re.findall(r'<(?:input|select|textarea)[^>]*\bname="([\w-]+)"', page)
    return set(found) - {"csrfmiddlewaretoken"}


def post(client: Client, url: str, fields: dict[str, Any], record: Any) -> Any:
    """Submit the form, check the response, and roll back all changes."""
    with transaction.atomic():
        before = counts()
        answer = client.post(url, urlencode(fields, doseq=True), content_type="application/x-www-form-urlencoded")
        add(record, answer.status_code)
        assert answer.status_code < 500, (url, {name: str(value)[:80] for name, value in fields.items()})
        if answer.status_code >= 400:
            assert counts() == before
        if answer.status_code == 422:
            assert re.search('role="alert"|class="errorlist|class="missing', answer.text), url
        transaction.set_rollback(True)
    return answer


@pytest.mark.parametrize("name", sorted(set(VIEWS) - APART))
def test_any_value_in_any_field_of_any_form(name: str, lab: Lab, other: Lab, admin: Client, record: Any) -> None:
    url, base = address(name, lab), good(name, lab)
    page = admin.get(url)
    if page.status_code == 405 and name not in FIELDS:
        base = {}
    fields = {
        field: base.get(field, "") for field in {*base, *(fields_on(page.text) if page.status_code == 200 else ())}
    }
    ids = st.sampled_from([other.model.pk, other.asset.pk, other.image.pk, other.registry.pk, other.cluster.pk])

    @tried(30 if fields and name != "sign_in" else 5)
    @given(data=st.data())
    def hostile(data: st.DataObject) -> None:
        said = dict(fields)
        for field in data.draw(
            st.lists(st.sampled_from([*sorted(fields), "do", "next"]) | TEXTS, min_size=1, max_size=3)
        ):
            said[field[:200]] = data.draw(TEXTS | ids | st.lists(TEXTS, max_size=3))
        post(admin, url, said, record)

    hostile()
    for raw in (b"name=%ff%fe&url=%ed%a0%80", b"%00=%00", b"&&==&", b"a=1&" * 1100):
        answer = admin.generic("POST", url, raw, content_type="application/x-www-form-urlencoded")
        assert answer.status_code < 500, raw[:20]
        assert admin.generic("POST", url, raw, content_type="multipart/form-data; boundary=x").status_code < 500


@pytest.mark.parametrize("name", sorted(set(VIEWS) - APART))
def test_any_query_of_any_page(name: str, lab: Lab, admin: Client, record: Any) -> None:
    url = address(name, lab)
    numbers = [f"{key}={quote(word)}" for key in NUMBERS for word in ("²", "9" * 5000)]
    all_at_once = ["&".join(f"{key}={quote(word)}" for key in QUERIES) for word in ("", "é", "-1", "1", "http://[::1")]
    for query in [*numbers, "q=%00", "clone=%00", "part=%00", *all_at_once, "q=%ff%fe", "%00", "a=1&" * 1100]:
        answer = admin.get(f"{url}?{query}")
        add(record, answer.status_code)
        assert answer.status_code < 500 or name == "healthz", query[:200]
