"""Guarded connections of requests, and the private names of urllib3 that they use."""

import http.server
import inspect
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from netguard.connect import find_forbidden
from netguard.http import GuardedAdapter, GuardedConnection, GuardedTLSConnection


@pytest.fixture
def server() -> Iterator[str]:
    """Run a web server on loopback. Yield its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{listener.server_port}"
    listener.shutdown()
    listener.server_close()


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as guarded:
        guarded.trust_env = False
        for scheme in ("http://", "https://"):
            guarded.mount(scheme, GuardedAdapter())
        yield guarded


def test_an_allowed_server_answers(session: requests.Session, server: str) -> None:
    assert session.get(server, timeout=5).status_code == 204


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", ["169.254.169.254", "2852039166", "0xa9fea9fe", "[fe80::1]"])
def test_a_forbidden_server_is_not_called(session: requests.Session, scheme: str, host: str) -> None:
    with pytest.raises(requests.ConnectionError) as error:
        session.get(f"{scheme}://{host}/latest/meta-data/", timeout=3)
    assert find_forbidden(error.value)


def test_a_forbidden_proxy_is_not_called(session: requests.Session, server: str) -> None:
    session.proxies = {"http": "http://169.254.169.254:3128"}
    with pytest.raises(requests.ConnectionError) as error:
        session.get(server, timeout=3)
    assert find_forbidden(error.value)


@pytest.mark.parametrize("kind", [HTTPConnection, HTTPSConnection])
def test_urllib3_connects_with_the_method_that_is_overridden(
    kind: type[HTTPConnection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails after an upgrade of urllib3, adapt netguard/http.py: addresses might no longer be checked."""
    assert list(inspect.signature(kind._new_conn).parameters) == ["self"]
    connection = kind("mms.example", 81, timeout=3, source_address=("127.0.0.1", 0), socket_options=[])
    assert connection._dns_host == "mms.example"
    assert (connection.port, connection.source_address, connection.socket_options) == (81, ("127.0.0.1", 0), [])

    class CalledError(Exception):
        pass

    def called(_: object) -> socket.socket:
        raise CalledError

    monkeypatch.setattr(kind, "_new_conn", called)
    with pytest.raises(CalledError):
        connection.connect()


def test_urllib3_takes_the_classes_of_its_pools_from_the_manager() -> None:
    adapter = GuardedAdapter()
    managers = [adapter.poolmanager, adapter.proxy_manager_for("http://proxy.example:3128")]
    for manager in managers:
        assert isinstance(manager, urllib3.PoolManager)
        for scheme, kind in (("http", GuardedConnection), ("https", GuardedTLSConnection)):
            pool = manager.connection_from_host("mms.example", 80, scheme)
            assert pool.ConnectionCls is kind
