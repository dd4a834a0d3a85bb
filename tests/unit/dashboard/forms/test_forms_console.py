"""The test console against an HTTP server in place of the gateway, and access to scoring keys."""

import html
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.test import Client

from dashboard.models import Role
from deployments.models import HostingAccount, Service
from tests.support.html import compact
from tests.support.spellings import spellings
from tests.support.workshop import (
    SCORING_KEY,
    make_account,
    make_image,
    make_manifest,
    make_model,
    make_service,
    sign_in,
)

pytestmark = pytest.mark.django_db
SWAGGER = {"definitions": {"ServiceInput": {"example": {"data": [[5.1, 3.5]]}}}}


class Scoring(BaseHTTPRequestHandler):
    """Request handler that echoes the body. /broken, /elsewhere and /long act as faulty services."""

    protocol_version = "HTTP/1.1"
    seen: list[dict[str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append({"path": self.path, "body": body, "key": self.headers.get("Authorization")})
        if self.path == "/broken/score":
            self._answer(500, b'{"error": {"message": "run() raised ValueError"}}')
        elif self.path == "/elsewhere/score":
            self._answer(302, b"", location="/iris/score")
        elif self.path == "/long/score":
            self._answer(200, b"x" * 300_000)
        else:
            self._answer(200, json.dumps({"got": json.loads(body)}).encode())

    def do_GET(self) -> None:
        self._answer(200, json.dumps(SWAGGER if self.path == "/iris/swagger.json" else {}).encode())

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Log nothing."""


@pytest.fixture
def gateway() -> Iterator[ThreadingHTTPServer]:
    Scoring.seen = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Scoring)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def account() -> HostingAccount:
    return make_account()


@pytest.fixture
def service(account: HostingAccount, gateway: ThreadingHTTPServer) -> Service:
    uri = f"http://127.0.0.1:{gateway.server_port}/iris/score"
    HostingAccount.objects.filter(pk=account.pk).update(base_url=f"http://127.0.0.1:{gateway.server_port}")
    return make_service(make_image(make_manifest(account, make_model(account))), scoring_uri=uri)


@pytest.fixture
def scientist(account: HostingAccount) -> Client:
    return sign_in("sam", account, Role.SCIENTIST)


def lead(service: Service, path: str) -> None:
    """Change the service's scoring URL to another path of the same server."""
    service.scoring_uri = service.scoring_uri.replace("/iris/", f"/{path}/")
    service.save()


def url(service: Service, page: str = "test") -> str:
    return f"/accounts/lab/services/{service.pk}/{page}/"


def test_the_console_sends_the_body_with_the_key_and_shows_the_response_and_time(
    scientist: Client, service: Service
) -> None:
    answer = scientist.post(url(service), {"body": '{"data": [1, 2]}'})
    assert answer.status_code == 200
    assert "200 OK" in answer.text
    assert "{&quot;got&quot;: {&quot;data&quot;: [1, 2]}}" in answer.text
    assert " ms<" in answer.text
    assert Scoring.seen == [{"path": "/iris/score", "body": b'{"data": [1, 2]}', "key": f"Bearer {SCORING_KEY}"}]
    assert SCORING_KEY not in answer.text


def test_the_example_of_the_service_is_filled_in(scientist: Client, service: Service) -> None:
    assert "5.1" in scientist.get(url(service)).text
    lead(service, "plain")
    assert "The service provides no example" in scientist.get(url(service)).text


def test_htmx_gets_the_console_alone(scientist: Client, service: Service) -> None:
    answer = scientist.post(url(service), {"body": "{}"}, headers={"HX-Request": "true"})
    assert answer.text.lstrip().startswith('<section class="panel console" id="console"')


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("", "Enter a request body"),
        ('{"a": 1,}', "Line 1, column"),
        ("{\n  nope", "Line 2, column 3"),
        ("[" * 99_999, "JSON"),
    ],
)
def test_invalid_json_is_not_sent(scientist: Client, service: Service, body: str, words: str) -> None:
    answer = scientist.post(url(service), {"body": body})
    assert answer.status_code == 422
    assert words in answer.text
    assert not Scoring.seen


@pytest.mark.parametrize("host", ["169.254.169.254", "[::ffff:169.254.169.254]"])
def test_a_server_cannot_make_the_console_call_reserved_addresses(
    host: str, scientist: Client, service: Service
) -> None:
    service.scoring_uri = f"http://{host}/latest/meta-data/score"
    service.save()
    assert (
        "reserved for a machine’s own services. It was not called" in scientist.post(url(service), {"body": "{}"}).text
    )
    assert "The service provides no example" in scientist.get(url(service)).text


def test_a_driver_that_raises_is_explained(scientist: Client, service: Service) -> None:
    lead(service, "broken")
    answer = scientist.post(url(service), {"body": "{}"})
    assert "500 Internal Server Error" in answer.text
    assert "run() raised ValueError" in answer.text
    assert "The driver script raised an error" in answer.text


def test_a_redirect_is_not_followed_with_the_key(scientist: Client, service: Service) -> None:
    lead(service, "elsewhere")
    answer = scientist.post(url(service), {"body": "{}"})
    assert "doesn’t follow" in answer.text
    assert [request["path"] for request in Scoring.seen] == ["/elsewhere/score"]


def test_a_scoring_url_on_another_port_of_this_machine_is_only_called_if_it_is_listed(
    scientist: Client, service: Service, gateway: ThreadingHTTPServer, settings: Any
) -> None:
    HostingAccount.objects.update(base_url="http://127.0.0.1:9")
    answer = scientist.post(url(service), {"body": "{}"})
    assert "on another host in a private network. It was not called." in answer.text
    assert scientist.get(url(service)).status_code == 200
    assert not Scoring.seen
    settings.PRIVATE_HOSTS = [f"127.0.0.1:{gateway.server_port}"]
    assert "got" in scientist.post(url(service), {"body": "{}"}).text
    assert len(Scoring.seen) == 1


def test_a_response_shows_no_secret_of_the_account(scientist: Client, service: Service) -> None:
    for text in spellings(SCORING_KEY).values():
        answer = scientist.post(url(service), {"body": json.dumps({"x": text})})
        shown = answer.text.partition("got")[2].partition("</pre>")[0]
        assert "…" in shown, text
        assert html.escape(text) not in shown


def test_a_long_response_is_truncated(scientist: Client, service: Service) -> None:
    lead(service, "long")
    answer = scientist.post(url(service), {"body": "{}"})
    assert "Only its beginning is shown" in answer.text
    assert len(answer.content) < 130_000


def test_an_unreachable_address_is_reported(scientist: Client, service: Service) -> None:
    HostingAccount.objects.update(base_url="http://127.0.0.1:9")
    for uri, words in (
        ("http://127.0.0.1:9/score", "Nothing responds at the scoring URL"),
        ("file:///etc/passwd", "URL that isn’t valid"),
    ):
        Service.objects.update(scoring_uri=uri)
        answer = scientist.post(url(service), {"body": "{}"})
        assert answer.status_code == 200
        assert words in answer.text


def test_a_service_without_scoring_address_has_no_console(scientist: Client, service: Service) -> None:
    Service.objects.update(scoring_uri="")
    assert scientist.post(url(service), {"body": "{}"}).status_code == 404


def test_data_scientists_can_view_the_key_and_it_is_not_cached(
    scientist: Client, account: HostingAccount, service: Service
) -> None:
    assert SCORING_KEY not in scientist.get(url(service)).text
    assert scientist.get(url(service, "key")).status_code == 405
    shown = scientist.post(url(service, "key"))
    assert "the-service&#x27;s-key" in shown.text
    assert "no-store" in shown.headers["Cache-Control"]
    assert sign_in("vera", account, Role.VIEWER).post(url(service, "key")).status_code == 403


def test_a_viewer_cannot_send_a_request(account: HostingAccount, service: Service) -> None:
    assert sign_in("vera", account, Role.VIEWER).post(url(service), {"body": "{}"}).status_code == 403
    assert not Scoring.seen


def test_the_snippets_call_with_the_body_of_the_console(scientist: Client, service: Service) -> None:
    page = scientist.post(url(service), {"body": '{"text": "it\'s", "fast": true}'})
    assert (
        "&#x27;{&quot;text&quot;: &quot;it&#x27;&quot;&#x27;&quot;&#x27;s&quot;, &quot;fast&quot;: true}&#x27;"
        in page.text
    )
    assert "&#x27;fast&#x27;: True}" in page.text
    part = scientist.post(url(service), {"body": "[1]"}, headers={"HX-Request": "true"})
    assert '<span id="python-body" hx-swap-oob="true">[1]</span>' in compact(part.text)
