"""live.js in a real browser, with the real stream and a page made for the test."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import django_htmx
import pytest
import redis
from django.utils import timezone
from playwright.sync_api import Browser, Page, expect

from dashboard import live as stream
from deployments.live import events
from tests.asgi_server import Server

# The stream releases its database connection after each permission check, although none is read here.
pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
STATIC = Path(__file__).parents[2] / "static"
HTMX = Path(django_htmx.__file__).parent / "static/django_htmx/htmx-2.min.js"
PAGE = """<!doctype html><script src="/htmx.js" defer></script><script src="/live.js" defer></script>
<body data-stream="/stream" data-position="{position}">
<span id="live-mark" data-live="off">not live</span>
<b id="one"><span data-badge="service-1" data-state="old">old</span></b>
<b id="two"><span data-badge="service-1" data-state="old">old</span></b>
<b id="other"><span data-badge="service-2" data-state="old">old</span></b>
<div id="trouble" data-refresh="account" hx-get="/part/trouble" hx-trigger="refresh consume"></div>
<div id="doubted" data-refresh="nothing" hx-get="/part/doubted" hx-trigger="refresh consume">
<p id="its-row" data-refresh="nothing-7" hx-get="/part/its-row" hx-trigger="refresh consume">
<span data-badge="nothing-7" data-state="old" data-holds="3">old</span></p></div>
<div id="list" data-refresh="rows services" hx-get="/part/list" hx-trigger="refresh consume">
<p id="row" data-refresh="service-1" hx-get="/part/row" hx-trigger="refresh consume">row as rendered</p></div>
<p id="any" data-refresh="any" hx-get="/part/any" hx-trigger="refresh consume">any as rendered</p>"""


class Site:
    """Server for the page, its scripts and the stream, which counts the requests."""

    def __init__(self) -> None:
        self.stream: Any = stream.Stream()
        self.fetched: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"]
        if path == "/stream":
            await self.stream(scope, receive, send)
            return
        kind, text = "text/html", PAGE.replace("{position}", events.stream_position())
        if path.endswith(".js"):
            kind, text = "text/javascript", (HTMX if path == "/htmx.js" else STATIC / "live.js").read_text()
        if path.startswith("/part/"):
            self.fetched.append(path[6:])
            text = f"fetched {self.fetched.count(path[6:])}"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind.encode())]})
        await send({"type": "http.response.body", "body": text.encode()})


@pytest.fixture
def site(live_redis: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(stream, "_find_reader", lambda scope: (1, {1}))  # the reader's identity isn't tested here
    return Site()


@pytest.fixture
def page(site: Site, browser: Browser) -> Iterator[Page]:
    with Server(site) as server, browser.new_context() as context:
        page = context.new_page()
        page.goto(server.url)
        expect(page.locator("#live-mark")).to_have_text("live")
        yield page


def announce(link: redis.Redis, key: str = "service-1", label: str = "Healthy", refresh: Any = ("service-1",)) -> None:
    fields = {"account": "1", "key": key, "state": "healthy", "label": label, "reason": "", "stale_since": ""}
    fields |= {"since": timezone.now().isoformat(), "refresh": json.dumps(list(refresh)), "until": ""}
    link.xadd(events.STREAM, cast(Any, fields))


def show(page: Page, visible: bool) -> None:
    page.evaluate(
        "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
        "document.dispatchEvent(new Event('visibilitychange')); }",
        not visible,
    )


def test_every_badge_of_a_resource_changes_without_a_reload_and_dependent_parts_are_fetched(
    page: Page, site: Site, live_redis: redis.Redis
) -> None:
    page.evaluate("window.same = true")
    announce(live_redis)
    for place in ("#one", "#two"):
        expect(page.locator(f"{place} span")).to_have_text("Healthy")
        expect(page.locator(f"{place} span")).to_have_attribute("data-state", "healthy")
    expect(page.locator("#other span")).to_have_text("old")
    expect(page.locator("#row")).to_have_text("fetched 1")
    expect(page.locator("#any")).to_have_text("fetched 1")
    assert site.fetched.count("list") == 0
    assert page.evaluate("window.same")


def test_a_burst_of_changes_fetches_each_part_once(page: Page, site: Site, live_redis: redis.Redis) -> None:
    for number in range(20):
        announce(live_redis, label=f"state {number}")
    expect(page.locator("#one span")).to_have_text("state 19")
    page.wait_for_timeout(600)
    assert site.fetched.count("row") <= 2
    assert site.fetched.count("any") == 1


def test_a_new_row_refreshes_the_list(page: Page, live_redis: redis.Redis) -> None:
    announce(live_redis, key="service-9", refresh=["service-9", "services"])
    expect(page.locator("#list")).to_have_text("fetched 1")


@pytest.mark.slow
def test_a_badge_without_updates_is_refreshed_when_it_becomes_stale(page: Page, site: Site) -> None:
    expect(page.locator("#doubted")).to_have_text("fetched 1", timeout=9000)
    assert "its-row" not in site.fetched, "the element that contains the row must refresh it"


def test_the_accounts_error_is_refreshed_when_it_begins_and_ends(
    page: Page, site: Site, live_redis: redis.Redis
) -> None:
    for times in (1, 2):
        events.publish_account(1)
        expect(page.locator("#trouble")).to_have_text(f"fetched {times}")
    events.publish_account(2)
    page.wait_for_timeout(600)
    assert site.fetched.count("trouble") == 2, "problems of other accounts must not be sent to this user"


def test_markup_in_a_reason_or_label_stays_text(page: Page, live_redis: redis.Redis) -> None:
    announce(live_redis, label="<img src=x onerror='window.hit = 1'>")
    expect(page.locator("#one span")).to_have_text("<img src=x onerror='window.hit = 1'>")
    assert page.evaluate("window.hit === undefined")


def test_a_hidden_page_closes_its_connection_and_misses_nothing(page: Page, live_redis: redis.Redis) -> None:
    show(page, visible=False)
    page.wait_for_timeout(500)
    assert all(client["cmd"] != "xread" for client in live_redis.client_list())
    announce(live_redis, label="while hidden")
    expect(page.locator("#one span")).to_have_text("old")
    show(page, visible=True)
    expect(page.locator("#one span")).to_have_text("while hidden")
    expect(page.locator("#live-mark")).to_have_attribute("data-live", "live")


def test_a_resync_fetches_the_outer_parts_only(page: Page, site: Site, live_redis: redis.Redis) -> None:
    announce(live_redis)
    expect(page.locator("#row")).to_have_text("fetched 1")
    page.wait_for_timeout(1200)
    show(page, visible=False)
    live_redis.flushall()
    show(page, visible=True)
    expect(page.locator("#list")).to_have_text("fetched 1")
    expect(page.locator("#any")).to_have_text("fetched 2")
    assert (site.fetched.count("row"), site.fetched.count("any")) == (1, 2)


@pytest.mark.slow
def test_without_a_stream_the_page_polls_and_later_reconnects(
    site: Site, browser: Browser, live_redis: redis.Redis
) -> None:
    real = site.stream

    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    site.stream = refuse
    with Server(site) as server, browser.new_context() as context:
        page = context.new_page()
        page.goto(server.url)
        expect(page.locator("#live-mark")).to_have_attribute("data-live", "polling")
        expect(page.locator("#list")).to_have_text("fetched 1", timeout=8000)
        site.stream = real
        expect(page.locator("#live-mark")).to_have_attribute("data-live", "live", timeout=12000)
        fetched = len(site.fetched)
        time.sleep(6)
        assert len(site.fetched) == fetched
        announce(live_redis, label="back")
        expect(page.locator("#one span")).to_have_text("back")
