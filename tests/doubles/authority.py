"""A small token service on loopback for client credentials, like Entra ID, which counts its requests."""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

TENANT, CLIENT_ID, SECRET, SCOPE = "contoso.example", "client-1", "secret~of/the+client", "api://mms/.default"
Answer = tuple[int, dict[str, str], bytes]


class Authority:
    """Token service at `authority.url` that issues token-1, token-2 …: `with Authority() as authority:`."""

    def __init__(self) -> None:
        self.lasts: Any = 3600  # reported lifetime of each token in seconds
        self.given: list[str] = []
        self.asked: list[dict[str, str]] = []  # the form of each request
        self.given_to: Callable[[str], None] = lambda token: None  # called with each new token
        self.fault: Callable[[], Answer] | None = None  # answers instead
        self.slow = 0.0

    def __enter__(self) -> "Authority":
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"authority": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, path: str, form: dict[str, str]) -> Answer:
        self.asked.append(form)
        time.sleep(self.slow)
        if self.fault:
            return self.fault()
        if path != f"/{TENANT}/oauth2/v2.0/token":
            return said(400, "invalid_request", "AADSTS90002: Tenant not found. Trace ID: 1 Correlation ID: 2")
        known = {"client_id": CLIENT_ID, "client_secret": SECRET, "scope": SCOPE, "grant_type": "client_credentials"}
        if form != known:
            words = f"AADSTS7000215: Invalid client secret provided: {form.get('client_secret')}. Trace ID: 1"
            return said(401, "invalid_client", words)
        self.given.append(f"token-{len(self.given) + 1}")
        self.given_to(self.given[-1])
        body = {"token_type": "Bearer", "expires_in": self.lasts, "access_token": self.given[-1]}
        return 200, {}, json.dumps(body).encode()


def said(status: int, error: str, words: str) -> Answer:
    return status, {}, json.dumps({"error": error, "error_description": words}).encode()


class _Handler(BaseHTTPRequestHandler):
    authority: Authority

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        status, headers, answer = self.authority.answer(self.path, form)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass
