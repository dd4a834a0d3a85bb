"""A site under a path of a proxy: every page, file, stream, upload and API works there, and nothing leads outside."""

import http.client
import http.server
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest
import requests

from tests.ports import free_port
from tests.site import Site

PATH = "/mlops"
PASSWORD = "a path leads to the site"
PAGES = [
    "",
    "accounts/local/models/",
    "accounts/local/models/new/",
    "accounts/local/manifests/",
    "accounts/local/manifests/new/",
    "accounts/local/images/",
    "accounts/local/services/",
    "accounts/local/operations/",
    "accounts/local/assets/",
    "accounts/local/assets/new/",
    "no-such-page/",
]
LINK = re.compile(r"\s(?:href|src|action|hx-get|hx-post|data-stream|formaction)=\"([^\"]*)\"")

pytestmark = pytest.mark.slow


class _Handler(http.server.BaseHTTPRequestHandler):
    """Forwards requests below PATH, with it or without it, and nothing else."""

    protocol_version = "HTTP/1.1"
    target: int
    removes_path: bool

    def _forward(self) -> None:
        if not f"{self.path}/".startswith((f"{PATH}/", f"{PATH}?")):
            self.send_error(404, "Not below the path of the site")
            return
        path = (self.path.removeprefix(PATH) or "/") if self.removes_path else self.path
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        server = http.client.HTTPConnection("127.0.0.1", self.target, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
        server.request(self.command, path, body, headers | {"Connection": "close"})
        answer = server.getresponse()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"connection", "transfer-encoding", "content-length", "date"}:
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        while part := answer.read1(65536):
            self.wfile.write(part)
            self.wfile.flush()

    do_GET = do_POST = do_HEAD = do_PUT = do_DELETE = do_PATCH = _forward

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def proxy(port: int, target: int, removes_path: bool) -> Iterator[None]:
    handler = type("Handler", (_Handler,), {"target": target, "removes_path": removes_path})
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield
        server.shutdown()


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("path") / "data", SITE_URL=f"http://127.0.0.1:{port}{PATH}")
    try:
        site.start()
        site.manage("create_user", "ada", "--role", "admin", "--password-stdin", stdin=f"{PASSWORD}\n")
        yield site
    finally:
        site.stop()


@pytest.fixture(params=[True, False], ids=["path removed", "path kept"])
def base(request: pytest.FixtureRequest, site: Site, port: int) -> Iterator[str]:
    with proxy(port, urlsplit(site.url).port or 0, request.param):
        yield f"http://127.0.0.1:{port}{PATH}/"


def sign_in(base: str) -> requests.Session:
    browser = requests.Session()
    page = browser.get(base)
    assert page.url.startswith(base), "the redirect to the sign-in page leaves the path"
    submit(browser, page, username="ada", password=PASSWORD)
    return browser


def submit(browser: requests.Session, page: requests.Response, **fields: str) -> requests.Response:
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
    assert token
    answer = browser.post(
        page.url, data=fields | {"csrfmiddlewaretoken": token[1]}, headers={"Referer": page.url}, timeout=60
    )
    assert answer.status_code == 200, answer.text
    return answer


def test_every_link_stays_below_the_path(base: str) -> None:
    browser = sign_in(base)
    seen = set()
    for path in PAGES:
        page = browser.get(urljoin(base, path))
        assert page.status_code == (404 if path.startswith("no-") else 200), path
        for link in map(unescape, LINK.findall(page.text)):
            url = urljoin(page.url, link)
            if url.startswith("http://127.0.0.1"):
                assert url.startswith((base, base.rstrip("/") + "#")), f"{link} on {path}"
                seen.add(url.partition("#")[0])
    assert len(seen) > 30
    static = [url for url in seen if "/static/" in url]
    assert len(static) > 5
    for url in static:
        assert browser.get(url).status_code == 200, url


def test_cookies_are_those_of_the_path(base: str) -> None:
    assert {cookie.path for cookie in sign_in(base).cookies} == {f"{PATH}/"}


def test_the_stream_is_below_the_path(base: str) -> None:
    with sign_in(base).get(urljoin(base, "stream"), stream=True, timeout=60) as stream:
        assert stream.status_code == 200
        assert any(line == b"event: live" for line in stream.iter_lines(chunk_size=1))


def test_an_upload_returns_to_its_page(base: str, tmp_path: Path) -> None:
    browser = sign_in(base)
    page = browser.get(urljoin(base, "accounts/local/assets/new/"))
    action = next(unescape(link) for link in LINK.findall(page.text) if "/uploads/" in link)
    headers = {"Accept": "text/html", "Origin": base.partition(PATH)[0], "Referer": page.url}
    answer = browser.post(urljoin(page.url, action), files={"file": ("a.txt", b"text")}, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.url.startswith(page.url)
    assert "a.txt" in answer.text, "the page doesn't name the uploaded file"


def test_the_apis_are_below_the_path(base: str, site: Site) -> None:
    documents = requests.get(urljoin(base, "api/docs"), timeout=60)
    assert documents.status_code == 200
    assert requests.get(urljoin(documents.url, LINK.findall(documents.text)[0]), timeout=60).json()["openapi"]
    assert requests.get(urljoin(base, "v1/openapi.json"), timeout=60).json()["servers"] == [{"url": f"{PATH}/"}]
    refused = requests.get(urljoin(base, "v1/accounts/"), timeout=60)
    assert (refused.status_code, refused.headers["content-type"]) == (401, "application/json")
    assert requests.get(urljoin(base, "scoring/unknown/score"), timeout=60).json()["error"]["code"] == "NotFound"
    token = site.manage("create_token", "--account", "local")
    account = "api/subscriptions/local/resourceGroups/local/hostingAccounts/local"
    answer = requests.get(urljoin(base, f"{account}/models"), headers={"Authorization": f"Bearer {token}"}, timeout=60)
    assert answer.json() == []


def test_the_site_itself_needs_no_path(site: Site) -> None:
    assert site.health()[0] == 200
    assert requests.get(f"{site.url}{PATH}x/", timeout=60, allow_redirects=False).status_code in {302, 404}
