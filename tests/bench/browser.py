"""Page load time with an empty cache, measured in headless Chromium."""

import json
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from playwright._impl._api_structures import SetCookieParam
from playwright.sync_api import Browser, sync_playwright

# Records when a matching element is laid out and the next frame is drawn, in ms since the start of the navigation.
SEEN = """
  const look = () => {
    const found = document.querySelector(%s);
    if (found && found.getClientRects().length) requestAnimationFrame(() => { window.seenAt = performance.now(); });
    else requestAnimationFrame(look);
  };
  look();
"""
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


@dataclass(frozen=True)
class ColdPage:
    seconds: float  # from the start of the navigation until the rows are visible, median of the runs
    bytes: int  # all bytes received, including headers
    requests: int


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Debian's Chromium, headless."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


def cold_page(
    browser: Browser, url: str, row: str, *, cookies: list[SetCookieParam] | None = None, runs: int = 5
) -> ColdPage:
    """Open `url` with an empty cache until an element matching `row` is visible. Repeat this `runs` times."""
    seen = [_once(browser, url, row, cookies or []) for _ in range(runs)]
    return ColdPage(
        seconds=statistics.median(page.seconds for page in seen),
        bytes=max(page.bytes for page in seen),
        requests=max(page.requests for page in seen),
    )


def _once(browser: Browser, url: str, row: str, cookies: list[SetCookieParam]) -> ColdPage:
    context = browser.new_context()  # each context has its own cache, initially empty
    context.add_cookies(cookies)
    page = context.new_page()
    sizes: list[int] = []
    protocol = context.new_cdp_session(page)
    protocol.send("Network.enable")
    protocol.on("Network.loadingFinished", lambda event: sizes.append(int(event["encodedDataLength"])))
    page.add_init_script(SEEN % json.dumps(row))
    page.goto(url, wait_until="commit")
    page.wait_for_selector(row, state="visible", timeout=60_000)
    page.wait_for_timeout(1000)  # anything still loading counts for the size, not for the time
    seconds = page.evaluate("window.seenAt") / 1000
    context.close()
    return ColdPage(seconds, sum(sizes), len(sizes))
