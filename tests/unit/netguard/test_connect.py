"""Connecting: the checked address is the one that is used."""

import socket
from collections.abc import Callable
from typing import Any

import pytest

from netguard.addresses import is_public
from netguard.connect import MAX_ADDRESSES, ForbiddenAddressError, find_forbidden, open_socket


def resolver(*addresses: str) -> Callable[..., list[Any]]:
    """Return a stand-in for getaddrinfo that gives all `addresses` each time."""

    def resolve(_host: str, port: int, **_: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    return resolve


@pytest.fixture
def listener() -> Any:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def port_of(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


def test_a_name_is_resolved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the second lookup returns a different address."""
    answers = iter(["169.254.169.254", "127.0.0.1"])

    def resolve(_host: str, port: int, **_: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(ForbiddenAddressError, match=r"169\.254\.169\.254"):
        open_socket("rebinding.example", 80, 1)
    assert next(answers) == "127.0.0.1"


def test_a_forbidden_address_is_skipped(monkeypatch: pytest.MonkeyPatch, listener: socket.socket) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", resolver("169.254.169.254", "127.0.0.1"))
    with open_socket("both.example", port_of(listener), 1) as connected:
        assert connected.getpeername()[0] == "127.0.0.1"


def test_the_rule_is_the_caller_s(listener: socket.socket) -> None:
    open_socket("127.0.0.1", port_of(listener), 1).close()
    with pytest.raises(ForbiddenAddressError):
        open_socket("127.0.0.1", port_of(listener), 1, rule=is_public)


def test_the_number_of_tried_addresses_of_a_host_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []

    def reject(address: str) -> bool:
        checked.append(address)
        return False

    monkeypatch.setattr(socket, "getaddrinfo", resolver(*(f"10.0.0.{number}" for number in range(1, 50))))
    with pytest.raises(ForbiddenAddressError):
        open_socket("many.example", 80, 1, rule=reject)
    assert len(checked) == MAX_ADDRESSES


def test_a_name_that_no_resolver_can_know(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(socket.gaierror):
        open_socket("a..example", 80, 1)
    monkeypatch.setattr(socket, "getaddrinfo", resolver())
    with pytest.raises(OSError, match="it has no address"):
        open_socket("empty.example", 80, 1)


def test_the_cause_is_found_behind_other_errors() -> None:
    reason = ForbiddenAddressError("169.254.169.254")
    cause, error = ValueError(), KeyError()
    cause.__cause__ = reason
    error.__context__ = cause
    assert find_forbidden(error) is reason
    assert find_forbidden(ValueError()) is None
