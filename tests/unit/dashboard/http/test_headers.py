"""Security and cache headers of every page."""

from typing import Any

import pytest

from tests.support.doors import VIEWS, address, permission_of
from tests.support.people import Lab, make_cast, make_lab

pytestmark = pytest.mark.django_db


@pytest.fixture
def answers(live_redis: Any) -> dict[str, Any]:
    lab: Lab = make_lab()
    admin = make_cast(lab.account).admin
    return {name: admin.get(address(name, lab)) for name in sorted(set(VIEWS) - {"sign_out"})}


def test_the_content_security_policy_allows_this_site_only(answers: dict[str, Any]) -> None:
    for name, answer in answers.items():
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy, name
        assert "frame-ancestors 'none'" in policy, name
        assert "base-uri 'none'" in policy, name
        assert "form-action 'self'" in policy, name
        assert "unsafe" not in policy, name
        assert "*" not in policy, name
        assert answer.headers["X-Frame-Options"] == "DENY", name
        assert answer.headers["X-Content-Type-Options"] == "nosniff", name
        assert answer.headers["Referrer-Policy"] == "same-origin", name


def test_pages_for_signed_in_users_are_not_stored(answers: dict[str, Any]) -> None:
    for name, answer in answers.items():
        if permission_of(name) != "anyone":
            assert "no-store" in answer.headers.get("Cache-Control", "") or answer.status_code == 405, name
            assert "HX-Request" in answer.headers.get("Vary", "") or answer.status_code == 405, name


@pytest.mark.parametrize("path", ["/no/such/page/", "/accounts/elsewhere-yet/", "/accounts/lab/models/99999/"])
def test_error_pages_are_not_stored(path: str, live_redis: Any) -> None:
    viewer = make_cast(make_lab().account).viewer
    answer = viewer.get(path)
    assert answer.status_code == 404
    assert "no-store" in answer.headers["Cache-Control"]


def test_pages_have_no_inline_scripts_or_styles(answers: dict[str, Any]) -> None:
    for name, answer in answers.items():
        if "text/html" in answer.headers["Content-Type"]:
            assert " style=" not in answer.text, name
            assert "<style" not in answer.text, name
            assert "<script>" not in answer.text, name
