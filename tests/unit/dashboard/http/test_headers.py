"""What every page says to browsers and caches, whoever asks."""

from typing import Any

import pytest
from django.http import HttpResponse

from tests.support.doors import VIEWS, address, permission_of
from tests.support.people import Lab, make_cast, make_lab

pytestmark = pytest.mark.django_db


@pytest.fixture
def answers(live_redis: Any) -> dict[str, HttpResponse]:
    lab: Lab = make_lab()
    admin = make_cast(lab.account).admin
    return {name: admin.get(address(name, lab)) for name in sorted(set(VIEWS) - {"sign_out"})}


def test_no_page_lets_scripts_styles_or_frames_of_others_in(answers: dict[str, HttpResponse]) -> None:
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


def test_nothing_that_somebody_signed_in_sees_is_kept(answers: dict[str, HttpResponse]) -> None:
    for name, answer in answers.items():
        if permission_of(name) != "anyone":
            assert "no-store" in answer.headers.get("Cache-Control", "") or answer.status_code == 405, name
            assert "HX-Request" in answer.headers.get("Vary", "") or answer.status_code == 405, name


@pytest.mark.parametrize("path", ["/no/such/page/", "/accounts/elsewhere-yet/", "/accounts/lab/models/99999/"])
def test_an_error_is_kept_as_little_as_a_page(path: str, live_redis: Any) -> None:
    viewer = make_cast(make_lab().account).viewer
    answer = viewer.get(path)
    assert answer.status_code == 404
    assert "no-store" in answer.headers["Cache-Control"]


def test_no_page_has_a_script_a_style_or_a_handler_of_its_own(answers: dict[str, HttpResponse]) -> None:
    for name, answer in answers.items():
        if "text/html" in answer.headers["Content-Type"]:
            assert " style=" not in answer.text, name
            assert "<style" not in answer.text, name
            assert "<script>" not in answer.text, name
