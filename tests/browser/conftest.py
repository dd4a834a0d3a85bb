"""Users of the running site, signed in with a headless Chromium."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.site import Site

PASSWORD = "a phrase for tests"
# A 422 is an ordinary response, and htmx reports an error when a newer request replaces an older one.
EXPECTED = re.compile("Failed to load resource|htmx:(sendAbort|afterRequest)")
SECONDS = 1000  # Playwright counts in milliseconds


@pytest.fixture
def sign_in(browser: Browser, site: Site) -> Iterator[Callable[..., Page]]:
    """Return a function that signs in a user and returns the page: `sign_in("sam", "scientist")`.

    It creates the user if needed. The test fails at its end if a page reported a script error or violated its content
    security policy.
    """
    complaints: list[str] = []
    contexts = []

    def listen(message: Any) -> None:
        if message.type == "error" and not EXPECTED.match(message.text):
            complaints.append(message.text)

    def enter(name: str, role: str, **options: Any) -> Page:
        command = ["create_user", name, "--role", role, "--account", "local", "--password-stdin"]
        if name not in people:
            site.manage(*command, stdin=PASSWORD)
            people.add(name)
        context = browser.new_context(base_url=site.url, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10 * SECONDS)
        page.on("console", listen)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto("/")
        page.get_by_label("Name").fill(name)
        page.get_by_label("Password").fill(PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url("**/accounts/**")  # the sign-in page has a heading as well
        return page

    yield enter
    for context in contexts:
        context.close()
    assert not complaints


people: set[str] = set()  # users created at the site of this run
