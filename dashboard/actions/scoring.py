"""Asking a service's scoring URL from the test console: one request with a time limit, and what came back."""

import json
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from django.conf import settings

from deployments.client.deadlines import TimedAdapter, call_within

CONNECT_SECONDS = 5
READ_SECONDS = 65  # a little more than the bundled scoring runtime gives one call
EXAMPLE_SECONDS = 3
SHOWN_BYTES = 100_000  # of an answer; more is of no use on a page
DOCUMENT_BYTES = 1_000_000  # of a swagger document
BROKEN = (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError, RecursionError)
REDIRECTS = range(300, 400)


@dataclass(frozen=True)
class Answer:
    """What a service answered. `problem` says in words what kept an answer away, or what is wrong with it."""

    status: int = 0
    text: str = ""
    milliseconds: float = 0.0
    problem: str = ""
    cut: bool = False  # only the beginning is shown

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300

    @property
    def phrase(self) -> str:
        """The status in words, e.g. `200 OK`."""
        try:
            return f"{self.status} {HTTPStatus(self.status).phrase}"
        except ValueError:
            return str(self.status)


def ask(uri: str, key: str | None, body: str) -> Answer:
    """POST the JSON text `body` to a scoring URL with the service's key, which redirects do not carry elsewhere."""
    started = time.perf_counter()
    try:
        with _request("POST", uri, key, body, (CONNECT_SECONDS, READ_SECONDS)) as response:
            content = response.raw.read(SHOWN_BYTES + 1, decode_content=True)
            milliseconds = (time.perf_counter() - started) * 1000
            return Answer(
                status=response.status_code,
                text=readable(content[:SHOWN_BYTES].decode(errors="replace")),
                milliseconds=milliseconds,
                problem=_problem(response.status_code),
                cut=len(content) > SHOWN_BYTES,
            )
    except BROKEN as error:
        return Answer(milliseconds=(time.perf_counter() - started) * 1000, problem=_unreachable(error))


def example_body(uri: str, key: str | None) -> str:
    """A request body that fits the service, from the example in its swagger document; "" when it has none."""
    try:
        with _request("GET", urljoin(uri, "swagger.json"), key, None, (EXAMPLE_SECONDS, EXAMPLE_SECONDS)) as response:
            document = json.loads(response.raw.read(DOCUMENT_BYTES, decode_content=True)) if response.ok else {}
    except BROKEN:
        return ""
    example = _example(document)
    return "" if example is None else readable(json.dumps(example))


def readable(text: str) -> str:
    """JSON with line breaks where that helps; any other text as it is."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    flat = json.dumps(value, ensure_ascii=False)
    return flat if len(flat) <= 100 else json.dumps(value, indent=2, ensure_ascii=False)


def _request(
    method: str, uri: str, key: str | None, body: str | None, timeout: tuple[float, float]
) -> requests.Response:
    if urlsplit(uri).scheme not in {"http", "https"}:
        raise ValueError("not a web address")
    if uri.startswith(f"{settings.GATEWAY_URL}/"):  # the public address may not lead here from inside
        uri = settings.MMS_URL + uri.removeprefix(settings.GATEWAY_URL)
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    data = body.encode() if body is not None else None
    session = requests.Session()
    session.trust_env = False  # no proxy and no .netrc between the console and the gateway
    for scheme in ("http://", "https://"):  # the server says where: by the rule of all addresses (addresses.py)
        session.mount(scheme, TimedAdapter())
    options: dict[str, Any] = {"timeout": timeout, "allow_redirects": False, "stream": True}
    with call_within(sum(timeout)):
        return session.request(method, uri, data=data, headers=headers, **options)


def _example(document: Any) -> Any:
    """The example of a swagger 2 document (definitions.ServiceInput) or of OpenAPI 3 (its first POST); None without."""
    try:
        return document["definitions"]["ServiceInput"]["example"]
    except (KeyError, TypeError):
        pass
    try:
        posts = [path["post"] for path in document["paths"].values() if "post" in path]
        content = posts[0]["requestBody"]["content"]["application/json"]
        return content["example"] if "example" in content else content["schema"]["example"]
    except (KeyError, TypeError, IndexError, AttributeError):
        return None


def _problem(status: int) -> str:
    if status in REDIRECTS:
        return "The service redirected the request. The console doesn’t follow, because the key would go along."
    reasons = {
        400: "The service rejected the input. Its response has the reason.",
        401: "The service rejected the scoring key. It may have been renewed. Sync, then try again.",
        404: "The gateway has no service at this URL.",
        413: "The input is larger than the service accepts.",
        500: "The driver script raised an error for this input. The traceback is in the service’s log.",
        502: "The service didn’t return a complete response. Its log has the reason.",
        503: "The service isn’t ready or is too busy. Try again in a moment.",
        504: "The service took too long to process this input.",
    }
    return reasons.get(status, "")


def _unreachable(error: Exception) -> str:
    if "never called" in str(error):
        return "The server reported a scoring URL reserved for a machine’s own services. It was not called."
    if isinstance(error, requests.ConnectTimeout | requests.ConnectionError) and not isinstance(
        error, requests.ReadTimeout
    ):
        return "Nothing responds at the scoring URL. Check that the service is running."
    if isinstance(error, requests.Timeout):
        return f"No response within {READ_SECONDS} seconds."
    if isinstance(error, ValueError):
        return "The server reported a scoring URL that isn’t valid."
    return "The connection closed before the response was complete."
