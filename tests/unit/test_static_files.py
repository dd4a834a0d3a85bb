"""Static files: whole, with the headers of WhiteNoise, small enough for a cold start in a hurry."""

import gzip
import re
from pathlib import Path

import django_htmx
from django.conf import settings
from django.test import Client

BROWSER = Client()


def test_a_file_comes_in_one_piece_with_its_type() -> None:
    answer = BROWSER.get("/static/style.css")
    assert not answer.streaming
    assert answer.headers["Content-Type"] == 'text/css; charset="utf-8"'
    assert answer.content == (settings.BASE_DIR / "static/style.css").read_bytes()


def test_a_part_of_a_file_and_its_headers_alone_can_be_asked_for() -> None:
    part = BROWSER.get("/static/style.css", headers={"Range": "bytes=0-9"})
    assert (part.status_code, len(part.content)) == (206, 10)
    alone = BROWSER.head("/static/style.css")
    assert (alone.status_code, alone.content) == (200, b"")
    assert int(alone.headers["Content-Length"]) > 10_000


def test_a_file_that_is_not_there_is_a_404() -> None:
    assert BROWSER.get("/static/nothing.css").status_code == 404


def test_the_stylesheet_stays_small_and_loads_nothing() -> None:
    text = (settings.BASE_DIR / "static/style.css").read_text()
    assert len(text) <= 25_000
    assert "url(" not in text
    assert "@import" not in text


def test_what_a_page_loads_fits_the_budget() -> None:
    htmx = Path(django_htmx.__file__).parent / "static/django_htmx/htmx-2.min.js"
    own = [settings.BASE_DIR / "static" / name for name in ("style.css", "page.js", "live.js", "mark.svg")]
    assert sum(len(gzip.compress(file.read_bytes())) for file in [htmx, *own]) < 60_000


def test_no_template_has_inline_scripts_or_styles() -> None:
    inline = re.compile(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|hx-on|hx-vals=['\"]js:", re.IGNORECASE)
    for file in (settings.BASE_DIR / "templates").rglob("*.html"):
        assert not inline.search(file.read_text()), file
