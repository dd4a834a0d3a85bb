"""Invisible characters and long texts of servers and people, as pages show them."""

from datetime import timedelta

import pytest
from django.template import Context, Template, engines
from django.test import Client
from django.utils import timezone

from dashboard.catalog.badges import render_badge
from dashboard.catalog.visible_text import visible, visible_html
from deployments.live.badges import Badge
from deployments.models import HostingAccount, RegisteredModel
from tests.support.workshop import make_account, sign_in_superuser

MARKS = {
    "right-to-left override": "\u202e",
    "isolate": "\u2066",
    "left-to-right mark": "\u200e",
    "zero-width space": "\u200b",
    "byte order mark": "\ufeff",
    "word joiner": "\u2060",
    "soft hyphen": "\xad",
    "escape": "\x1b",
    "next line": "\x85",
    "line separator": "\u2028",
    "tag": "\U000e0041",
}


@pytest.mark.parametrize("name", MARKS)
def test_an_invisible_character_is_shown_as_its_code_point(name: str) -> None:
    mark = MARKS[name]
    shown = f"exe[U+{ord(mark):04X}]gnp"
    assert visible(f"exe{mark}gnp") == shown
    template = engines["django"].from_string('<p title="{{ name }}">{{ name }}</p>')
    assert template.render({"name": f"exe{mark}gnp"}) == f'<p title="{shown}">{shown}</p>'


def test_ordinary_text_of_any_language_is_unchanged() -> None:
    joined = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f469\u200d\U0001f4bb"
    text = f"na\u00efve \u2013 \u201cquoted\u201d\u2026 \u4e2d\u6587\t\r\n {joined}"
    assert visible_html(f"<p>{text}</p>") == f"<p>{text}</p>"
    assert visible("a\u200db") == "a[U+200D]b"


def test_form_values_and_urls_are_unchanged() -> None:
    html = '<input value="a\u202eb"><a href="/a\u202eb">x</a><textarea name="t">a\u202eb > c</textarea>'
    assert visible_html(html) == html


def test_markup_is_recognized_in_spite_of_signs_in_attributes() -> None:
    html = '<a data-x="a > b" title="\u202e" href="\u202e">\u202e</a> 1 < 2 \u202e'
    assert visible_html(html) == '<a data-x="a > b" title="[U+202E]" href="\u202e">[U+202E]</a> 1 < 2 [U+202E]'


def test_the_live_stream_shows_them_as_well() -> None:
    badge = Badge("service-1", "unknown", "a\u202eb", timezone.now(), "c\u200bd")
    html = render_badge(badge)
    assert "a[U+202E]b" in html
    assert 'title="c[U+200B]d"' in html


@pytest.mark.django_db
def test_names_in_lists_and_details_show_them() -> None:
    account: HostingAccount = make_account("lab")
    model = RegisteredModel.objects.create(account=account, mms_id="m", name="exe\u202egnp", seen_at=timezone.now())
    browser: Client = sign_in_superuser()
    for path in ("models/", f"models/{model.pk}/"):
        page = browser.get(f"/accounts/lab/{path}").content.decode()
        assert "exe[U+202E]gnp" in page
        assert "\u202e" not in page


def test_a_next_attempt_is_never_in_the_past() -> None:
    template = Template("{% load page %}{% due at %}")
    now = timezone.now()
    past, soon = (template.render(Context({"at": now + timedelta(seconds=s)})) for s in (-3, 30.5))
    assert ">now<" in past
    assert ">in 30 s<" in soon
    assert "data-due" in past
