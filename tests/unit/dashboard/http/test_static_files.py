"""Static files: complete, with the headers of WhiteNoise, and small enough to load fast."""

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import django_htmx
import pytest
import requests
from django.conf import settings

from dashboard.http.static import StaticFiles
from tests.asgi_server import Server


async def fallback(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b"fallback"})


@pytest.fixture(scope="module")
def static() -> Iterator[str]:
    """Return the base URL of the files."""
    with Server(StaticFiles(fallback)) as server:
        yield f"{server.url}/static"


def test_a_file_is_served_whole_with_its_content_type(static: str) -> None:
    answer = requests.get(f"{static}/style.css")
    assert answer.headers["Content-Type"] == 'text/css; charset="utf-8"'
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "max-age" in answer.headers["Cache-Control"]
    assert answer.content == (settings.BASE_DIR / "static/style.css").read_bytes()


def test_range_and_head_requests_work(static: str) -> None:
    part = requests.get(f"{static}/style.css", headers={"Range": "bytes=0-9"})
    assert (part.status_code, len(part.content)) == (206, 10)
    alone = requests.head(f"{static}/style.css")
    assert (alone.status_code, alone.content) == (200, b"")
    assert int(alone.headers["Content-Length"]) > 10_000


def test_an_unmodified_file_is_not_sent_again(static: str) -> None:
    modified = requests.get(f"{static}/style.css").headers["Last-Modified"]
    again = requests.get(f"{static}/style.css", headers={"If-Modified-Since": modified})
    assert (again.status_code, again.content) == (304, b"")


def test_unknown_paths_are_passed_on(static: str) -> None:
    for path in ("nothing.css", "../manage.py", "%2e%2e/manage.py", ""):
        assert requests.get(f"{static}/{path}").content == b"fallback"


def test_the_stylesheet_stays_small_and_loads_nothing() -> None:
    text = (settings.BASE_DIR / "static/style.css").read_text()
    assert len(text) <= 25_000
    assert "url(" not in text
    assert "@import" not in text


def test_the_static_files_of_a_page_fit_the_size_budget() -> None:
    htmx = Path(django_htmx.__file__).parent / "static/django_htmx/htmx-2.min.js"
    own = [settings.BASE_DIR / "static" / name for name in ("style.css", "page.js", "live.js", "mark.svg")]
    assert sum(len(gzip.compress(file.read_bytes())) for file in [htmx, *own]) < 60_000


def test_no_template_has_inline_scripts_or_styles() -> None:
    inline = re.compile(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|hx-on|hx-vals=['\"]js:", re.IGNORECASE)
    for file in (settings.BASE_DIR / "templates").rglob("*.html"):
        assert not inline.search(file.read_text()), file
