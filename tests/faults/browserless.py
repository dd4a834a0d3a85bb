"""A client of the running site without a browser, which signs in and submits forms as a page does."""

import html
import re
import socket

import requests

from tests.site import Site

TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')
FIELD = re.compile(r'<input type="hidden" name="([^"]+)" value="([^"]*)">')


class Visitor:
    password = "a phrase for tests"

    def __init__(self, site: Site, name: str, role: str, *, sign_in: bool = True) -> None:
        self.site, self.name = site, name
        self.session = requests.Session()
        site.manage("create_user", name, "--role", role, "--account", "local", "--password-stdin", stdin=self.password)
        if sign_in:
            assert self.sign_in().status_code == 302

    def get(self, path: str) -> requests.Response:
        return self.session.get(f"{self.site.url}{path}", timeout=60)

    def post(self, path: str, fields: dict[str, str], form: str = "") -> requests.Response:
        """Submit a form. `form` is the page that contains it, if that isn't `path`."""
        token = TOKEN.search(self.get(form or path).text)
        assert token, f"{form or path} has no form"
        return self._send(path, fields | {"csrfmiddlewaretoken": token[1]})

    def sign_in(self) -> requests.Response:
        return self.post("/sign-in/", {"username": self.name, "password": self.password})

    def post_model(self, name: str, url: str = "http://files.example/model.bin") -> requests.Response:
        return self.post("/accounts/local/models/new/", {"name": name, "url": url})

    def send_again(self, answer: requests.Response) -> requests.Response:
        """Do what the "Send again" button of a response does."""
        action = re.search(r'<form method="post" action="([^"]+)">', answer.text)
        assert action
        fields = {name: html.unescape(value) for name, value in FIELD.findall(answer.text)}
        return self._send(html.unescape(action[1]), fields)

    def _send(self, path: str, fields: dict[str, str]) -> requests.Response:
        return self.session.post(f"{self.site.url}{path}", data=fields, allow_redirects=False, timeout=60)

    def upload(self, content: bytes) -> None:
        """Upload a file as the page's script does."""
        answer = self.session.post(
            f"{self.site.url}/uploads/?account=local",
            files={"file": ("file.bin", content)},
            headers={"Sec-Fetch-Site": "same-origin"},
            timeout=60,
        )
        assert answer.status_code == 201, answer.text

    def begin(self, path: str, content_type: str, length: int, part: bytes) -> socket.socket:
        """Start a POST and send only `part` of its body."""
        connection = socket.create_connection(("127.0.0.1", self.site.port))
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.session.cookies)
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.site.port}\r\nCookie: {cookies}\r\n"
            f"Sec-Fetch-Site: same-origin\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
        )
        connection.sendall(head.encode() + part)
        return connection
