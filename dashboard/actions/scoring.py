"""Test requests to a service's scoring URL, with a time limit."""

import json
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from django.conf import settings

from deployments.client.deadlines import TimedAdapter, call_within
from netguard.connect import find_forbidden
from netguard.destinations import Destinations
from netguard.redaction import MAX_SPELLED_BYTES, Redactor

CONNECT_SECONDS = 5
READ_SECONDS = 65  # slightly more than the time limit of the bundled scoring runtime
EXAMPLE_SECONDS = 3
MAX_SHOWN_BYTES = 100_000  # maximum size of a response
MAX_DOCUMENT_BYTES = 1_000_000  # maximum size of a swagger document
MAX_LINE_CHARS = 100  # longer JSON is indented
REQUEST_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError, RecursionError)
REDIRECTS = range(300, 400)


@dataclass(frozen=True)
class ScoringResult:
    """The response of a service. `problem`: the reason if it is missing or unusable.

    `status` is 0 if there was no response. `is_cut`: `text` is only the beginning of the body.
    """

    status: int = 0
    text: str = ""
    milliseconds: float = 0.0
    problem: str = ""
    is_cut: bool = False

    @property
    def is_success(self) -> bool:
        """True if the status is 2xx."""
        return 200 <= self.status < 300

    @property
    def status_line(self) -> str:
        """The status with its phrase, such as `200 OK`."""
        try:
            return f"{self.status} {HTTPStatus(self.status).phrase}"
        except ValueError:
            return str(self.status)


@dataclass(frozen=True)
class ScoringTarget:
    """A scoring URL, with rules for requests to it and for displaying its responses.

    server: base URL of the account, whose server reported the URL. In a private network, only its own host and
    PRIVATE_HOSTS are called. redactor: of the account's secrets, which a response must not show. Short secrets aren't
    removed from it, because they may be part of a number.
    """

    server: str
    uri: str
    key: str | None = field(repr=False)
    redactor: Redactor = field(default_factory=Redactor)


def score(target: ScoringTarget, body: str) -> ScoringResult:
    """POST the JSON text `body` to a scoring URL with the service's key. Redirects aren't followed.

    Never raises. If the request fails, `problem` of the result has the reason.
    """
    started = time.perf_counter()
    try:
        with _request(target, "POST", target.uri, body, (CONNECT_SECONDS, READ_SECONDS)) as response:
            # Includes enough text to recognize a secret at the cut.
            content = response.raw.read(MAX_SHOWN_BYTES + MAX_SPELLED_BYTES, decode_content=True)
            milliseconds = (time.perf_counter() - started) * 1000
            return ScoringResult(
                status=response.status_code,
                text=indent_json(target.redactor.for_ids.text(content.decode(errors="replace"))[:MAX_SHOWN_BYTES]),
                milliseconds=milliseconds,
                problem=_problem(response.status_code),
                is_cut=len(content) > MAX_SHOWN_BYTES,
            )
    except REQUEST_ERRORS as error:
        return ScoringResult(milliseconds=(time.perf_counter() - started) * 1000, problem=_unreachable(error))


def example_body(target: ScoringTarget) -> str:
    """Return the example request body in the service's swagger document; "" if it has none."""
    address = urljoin(target.uri, "swagger.json")
    try:
        with _request(target, "GET", address, None, (EXAMPLE_SECONDS, EXAMPLE_SECONDS)) as response:
            content = response.raw.read(MAX_DOCUMENT_BYTES, decode_content=True)
            document = target.redactor.for_ids.json(content) if response.ok else {}
    except REQUEST_ERRORS:
        return ""
    example = _example(document)
    return "" if example is None else indent_json(json.dumps(example))


def indent_json(text: str) -> str:
    """Return JSON text on one line, or indented if it is long; any other text unchanged."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    flat = json.dumps(value, ensure_ascii=False)
    return flat if len(flat) <= MAX_LINE_CHARS else json.dumps(value, indent=2, ensure_ascii=False)


def _request(
    target: ScoringTarget, method: str, uri: str, body: str | None, timeout: tuple[float, float]
) -> requests.Response:
    if urlsplit(uri).scheme not in {"http", "https"}:
        raise ValueError("not a web address")
    own = [target.server]
    if uri.startswith(f"{settings.GATEWAY_URL}/"):  # the public URL may be unreachable from this machine
        own.append(settings.LOCAL_GATEWAY_URL)
        uri = settings.LOCAL_GATEWAY_URL + uri.removeprefix(settings.GATEWAY_URL)
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if target.key:
        headers["Authorization"] = f"Bearer {target.key}"
    data = body.encode() if body is not None else None
    session = requests.Session()
    session.trust_env = False  # no proxies and no .netrc
    destinations = Destinations(tuple(own), tuple(settings.PRIVATE_HOSTS))  # the server supplies the URL
    for scheme in ("http://", "https://"):
        session.mount(scheme, TimedAdapter(rule_for=destinations.rule))
    options: dict[str, Any] = {"timeout": timeout, "allow_redirects": False, "stream": True}
    with call_within(sum(timeout)):
        return session.request(method, uri, data=data, headers=headers, **options)


def _example(document: Any) -> Any:
    """Return the example in a Swagger 2 (definitions.ServiceInput) or OpenAPI 3 document (first POST); or None."""
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
        return "The service redirected the request. The console doesn’t follow it, to protect the key."
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
    forbidden = find_forbidden(error)
    if forbidden and forbidden.is_private:
        return (
            "The server reported a scoring URL on another host in a private network. It was not called. If that host "
            "is correct, add it to PRIVATE_HOSTS."
        )
    if forbidden:
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
