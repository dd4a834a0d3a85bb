"""Hosts that a response may refer to: those that were entered or listed, and public ones."""

import pytest

from netguard.destinations import Destinations

HERE = ("http://127.0.0.1:5000",)
PRIVATE = ("https://registry.internal", "http://10.0.0.5:5000")


@pytest.mark.parametrize(
    ("url", "own", "listed", "expected"),
    [
        ("http://127.0.0.1:5000/v2/", HERE, (), True),
        ("http://localhost:5000/v2/", HERE, (), True),
        ("http://127.0.0.1:6379/", HERE, (), False),
        ("http://localhost:6379/", HERE, (), False),
        ("https://localhost/", HERE, (), False),
        ("https://[::1]:6379/", HERE, (), False),
        ("https://127.0.0.2:5000/", HERE, (), False),
        ("https://10.0.0.7/", HERE, (), False),
        ("https://1.1.1.1/token", HERE, (), True),
        ("http://1.1.1.1/token", HERE, (), False),
        ("https://auth.docker.example/token", HERE, (), True),
        ("http://auth.docker.example/token", HERE, (), False),
        ("https://registry.internal/x", PRIVATE, (), True),
        ("https://registry.internal:8443/x", PRIVATE, (), True),
        ("http://10.0.0.5:5001/x", ("http://10.0.0.5:5000",), (), True),
        ("http://10.0.0.6:5000/x", PRIVATE, (), False),
        ("http://10.0.0.6:5000/x", PRIVATE, ("10.0.0.6",), True),
        ("http://10.0.0.6:5000/x", PRIVATE, ("10.0.0.6:5000",), True),
        ("http://10.0.0.6:5001/x", PRIVATE, ("10.0.0.6:5000",), False),
        ("https://10.0.0.6:5001/x", PRIVATE, ("10.0.0.0/24",), True),
        ("https://169.254.169.254/", PRIVATE, ("169.254.0.0/16",), False),
        ("not a url", PRIVATE, (), False),
        ("https://[broken/", PRIVATE, (), False),
    ],
)
def test_a_response_refers_to_what_was_entered_listed_or_public(
    url: str, own: tuple[str, ...], listed: tuple[str, ...], expected: bool
) -> None:
    assert Destinations(own, listed).may_refer_to(url) is expected


@pytest.mark.parametrize(
    ("host", "port", "address", "expected"),
    [
        ("127.0.0.1", 5000, "127.0.0.1", True),
        ("localhost", 5000, "::1", True),
        ("elsewhere.example", 443, "1.1.1.1", True),
        ("elsewhere.example", 443, "127.0.0.1", False),
        ("elsewhere.example", 5000, "127.0.0.1", False),
        ("elsewhere.example", 443, "10.0.0.5", False),
        ("listed.internal", 443, "10.0.0.5", True),
        ("listed.internal", 443, "169.254.169.254", False),
        ("registry.internal", 8443, "10.0.0.5", True),
        ("registry.internal", 8443, "127.0.0.1", False),
        ("any.example", 443, "10.9.0.1", True),
    ],
)
def test_the_rule_is_applied_to_the_address_of_a_name(host: str, port: int, address: str, expected: bool) -> None:
    """Whatever a name resolves to at the moment of the connection."""
    own = ("http://127.0.0.1:5000", "https://registry.internal")
    assert Destinations(own, ("listed.internal", "10.9.0.0/16")).rule(host, port)(address) is expected
