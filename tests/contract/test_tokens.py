"""API tokens at a real server: scope, expiry, kind, and the time of last use."""

import http.client
import re
import uuid
from urllib.parse import urlsplit

import pytest
import requests

from tests.contract.server import UNKNOWN_ID, Server
from tests.contract.test_every_request import assert_is_error
from tests.site import Site, wait_until

WRITES = [
    ("POST", "models"),
    ("POST", "manifests"),
    ("POST", "images"),
    ("POST", "services"),
    ("PUT", f"services/{UNKNOWN_ID}"),
    ("DELETE", f"services/{UNKNOWN_ID}"),
    ("DELETE", f"operations/{UNKNOWN_ID}"),
    ("POST", f"services/{UNKNOWN_ID}/regenerateKeys"),
]
READS = ["models", "manifests", "images", "services", *(f"{noun}/{UNKNOWN_ID}" for noun in ("models", "operations"))]


@pytest.fixture(scope="module")
def site(own_site: Site | None) -> Site:
    if own_site is None:
        pytest.skip("needs a server whose tokens the tests can create")
    return own_site


@pytest.fixture(scope="module")
def reader(server: Server, site: Site) -> Server:
    token = site.manage("create_token", "--account", "local", "--scope", "read", "--name", "a reader")
    return with_token(server, token)


def with_token(server: Server, token: str) -> Server:
    subscription, group, account = server.path.split("/")[3:8:2]
    return Server(server.url, token, subscription, group, account)


def number(site: Site, name: str) -> str:
    """Return the number of the newest token with this name."""
    return next(line.split()[0] for line in reversed(site.manage("list_tokens").splitlines()) if f"  {name}  " in line)


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_a_read_token_cannot_change_anything(server: Server, reader: Server, method: str, path: str) -> None:
    body = {"name": f"m-{uuid.uuid4().hex[:8]}", "url": "http://models.example/x"}
    before = len(server.send("GET", "models").json())
    answer = reader.send(method, path, body)
    assert_is_error(answer, 403)
    assert answer.json()["error"]["code"] == "ReadOnlyToken"
    assert len(server.send("GET", "models").json()) == before


@pytest.mark.parametrize("path", READS)
def test_a_read_token_sees_the_same_as_a_write_token(server: Server, reader: Server, path: str) -> None:
    mine, theirs = reader.send("GET", path), server.send("GET", path)
    assert mine.status_code == theirs.status_code
    assert mine.json() == theirs.json()
    assert reader.send("HEAD", path).status_code == theirs.status_code


def test_a_read_token_gets_no_scoring_keys(server: Server, reader: Server) -> None:
    """The keys would allow it to use every service."""
    path = f"services/{uuid.uuid4()}/keys"
    assert_is_error(server.send("GET", path), 404)
    for method in ("GET", "HEAD"):
        assert reader.send(method, path).status_code == 403


def test_the_body_of_a_write_request_with_a_read_token_is_not_read(reader: Server) -> None:
    address = urlsplit(reader.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
    connection.putrequest("POST", f"{reader.path}/models")
    connection.putheader("Authorization", f"Bearer {reader.token}")
    connection.putheader("Content-Length", "1000000")
    connection.endheaders()
    assert connection.getresponse().status == 403
    connection.close()


@pytest.mark.slow
def test_unknown_expired_and_revoked_tokens_get_the_same_response(server: Server, site: Site) -> None:
    revoked = site.manage("create_token", "--account", "local", "--name", "soon revoked")
    assert with_token(server, revoked).send("GET", "models").status_code == 200
    site.manage("revoke_token", number(site, "soon revoked"))
    wait_until(lambda: with_token(server, revoked).send("GET", "models").status_code == 401, 5, "the revoked token")
    expired = site.manage("create_token", "--account", "local", "--name", "expired", "--days", "1")
    site.manage(
        "shell",
        "-c",
        "from mms.models import Token; from django.utils import timezone;"
        "Token.objects.filter(name='expired').update(expires_at=timezone.now())",
    )
    answers = {}
    for kind, token in {"revoked": revoked, "expired": expired, "unknown": "mms_" + "x" * 43, "malformed": "x"}.items():
        answer = with_token(server, token).send("GET", "models")
        assert_is_error(answer, 401)
        answers[kind] = (answer.content, {name for name in answer.headers if name != "date"})
    assert len({str(answer) for answer in answers.values()}) == 1, answers
    assert "unknown, expired or revoked" in str(answers["unknown"])


def test_a_users_token_is_rejected_because_of_its_kind(server: Server) -> None:
    answer = with_token(server, "dash_" + "x" * 43).send("GET", "models")
    assert_is_error(answer, 401)
    assert "This token is for the dashboard's API, not for the MMS." in answer.json()["error"]["message"]


def test_a_token_outside_the_authorization_header_is_rejected(server: Server) -> None:
    for where in (
        {"params": {"access_token": server.token, "token": server.token}},
        {"cookies": {"token": server.token, "sessionid": server.token}},
        {"auth": (server.token, server.token)},
        {"headers": {"X-Api-Key": server.token}},
    ):
        answer = requests.get(f"{server.url}{server.path}/models", timeout=30, **where)
        assert_is_error(answer, 401)
        assert server.token not in answer.text


@pytest.mark.slow
def test_the_last_use_of_a_token_is_shown(server: Server, site: Site) -> None:
    token = site.manage("create_token", "--account", "local", "--name", "to be used")

    def last_use() -> str:
        line = next(line for line in site.manage("list_tokens").splitlines() if "  to be used  " in line)
        return re.split(r" {2,}", line)[5]

    assert last_use() == "never"
    with_token(server, token).send("GET", "models")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d", wait_until(lambda: last_use().replace("never", ""), 10, "its use")
    )
