"""The deny list, in every spelling of an address."""

import pytest

from netguard.addresses import DENIED, is_allowed, is_forbidden_host, is_public, local_host, url_host

# Services of a machine or of its cloud; neither rule permits them.
HOST_SERVICES = [
    "169.254.169.254",
    "169.254.170.2",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "::a9fe:a9fe",
    "fe80::1",
    "fe80::1%eth0",
    "fd00:ec2::254",
    "168.63.129.16",
    "100.100.100.200",
    "192.0.0.192",
    "0.0.0.0",
    "0.0.0.1",
    "::",
    "224.0.0.1",
    "ff02::1",
    "fec0::1",
    "::127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2001:0:7f00:1::",
    "192.88.99.1",
]
PRIVATE = [
    "127.0.0.1",
    "::1",
    "10.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "fc00::1",
    "fd12:3456::1",
    "::ffff:10.0.0.1",
]
RESERVED = ["192.0.2.1", "198.18.0.1", "240.0.0.1", "255.255.255.255", "2001:db8::1"]
PUBLIC = ["8.8.8.8", "93.184.216.34", "151.101.1.63", "2606:4700::1111", "::ffff:8.8.8.8"]


@pytest.mark.parametrize("address", HOST_SERVICES)
def test_services_of_the_machine_are_neither_allowed_nor_public(address: str) -> None:
    assert not is_allowed(address)
    assert not is_public(address)
    assert is_forbidden_host(f"[{address}]" if ":" in address else address)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_allowed_but_not_public(address: str) -> None:
    assert is_allowed(address)
    assert not is_public(address)


@pytest.mark.parametrize("address", RESERVED)
def test_reserved_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    assert is_allowed(address)
    assert is_public(address)


@pytest.mark.parametrize("network", DENIED, ids=str)
def test_the_first_and_last_address_of_every_denied_network_is_rejected(network: object) -> None:
    for address in (network[0], network[-1]):  # type: ignore[index] # a union of IPv4Network and IPv6Network
        allowed = {"::1"}  # loopback, within ::/96
        assert str(address) in allowed or not is_allowed(str(address))


@pytest.mark.parametrize("host", ["mms.example", "localhost", "127.0.0.1", "[::1]", ""])
def test_a_name_is_not_a_forbidden_host(host: str) -> None:
    assert not is_forbidden_host(host)


@pytest.mark.parametrize(
    ("listening", "reached", "in_url"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1", "127.0.0.1"),
        ("::", "::1", "[::1]"),
        ("0:0:0:0:0:0:0:0", "::1", "[::1]"),
        ("::1", "::1", "[::1]"),
        ("fd00::2", "fd00::2", "[fd00::2]"),
        ("localhost", "localhost", "localhost"),
        ("models.example", "models.example", "models.example"),
    ],
)
def test_a_listening_program_is_reached_at(listening: str, reached: str, in_url: str) -> None:
    assert local_host(listening) == reached
    assert url_host(reached) == url_host(in_url) == in_url
