"""Which addresses this site calls at all, judged on the very address that is connected to.

Servers, registries and clusters are where a company keeps them: in private networks, or on this machine. What is
link-local is not one of them: there a machine's own services hand out its credentials. One rule for the connection test
and for real calls, at the moment of connecting: so neither a name that resolves differently the second time, nor
another way to spell an address gets around it.
"""

import errno
import ipaddress
import socket
from collections.abc import Sequence
from typing import Any
from urllib.parse import SplitResult, urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Services of the host beyond link-local ones (Azure's agent, Amazon's and Alibaba's metadata), and ways to spell an
# IPv4 address as IPv6 that could lead to one.
_NEVER = [
    ipaddress.ip_network(text)
    for text in (
        "168.63.129.16/32",
        "fd00:ec2::/32",
        "100.100.100.200/32",
        "192.0.0.0/24",
        "::/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2001::/32",
        "2002::/16",
        "fec0::/10",
    )
]


LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})  # hosts of URLs that lead nowhere else


class Forbidden(OSError):
    """No address of this host may be called. `strerror` is a sentence without its end."""

    def __init__(self, address: str):
        says = f"{address} is reserved for a machine's own services and is never called"
        super().__init__(errno.EACCES, says)


def may_be_called(text: str) -> bool:
    """Whether this numeric address may be that of a server, a registry or a cluster."""
    address = _address(text)
    odd = address.is_link_local or address.is_multicast or address.is_unspecified
    return address.is_loopback or not (odd or any(address in network for network in _NEVER))


def web_address(text: str) -> SplitResult | None:
    """The parts of an http(s) URL that names a host; None of anything else."""
    try:
        parts = urlsplit(text)
        whole = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        return None
    return parts if whole else None


def is_forbidden(host: str) -> bool:
    """Whether the host of a URL is, in so many digits, an address that is never called. A name never is."""
    try:
        return not may_be_called(host.strip("[]"))
    except ValueError:
        return False


def dial(
    host: str, port: int, timeout: float | None, source: tuple[str, int] | None, options: Sequence[Any] | None
) -> socket.socket:
    """A connected socket to the first address of `host` that may be called and answers.

    Raises Forbidden where none may be called, OSError where none answers.
    """
    failure: OSError | None = None
    for family, kind, protocol, _, place in socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM):
        if not may_be_called(str(place[0])):
            failure = failure or Forbidden(str(place[0]))
            continue
        sock = socket.socket(family, kind, protocol)
        try:
            for option in options or []:
                sock.setsockopt(*option)
            sock.settimeout(timeout)
            if source:
                sock.bind(source)
            sock.connect(place)
            return sock
        except OSError as error:
            sock.close()
            failure = error
    raise failure or OSError(errno.EADDRNOTAVAIL, "it has no address")


def _address(text: str) -> Address:
    """The address, and of ::ffff:a.b.c.d the IPv4 address that is meant. Raises ValueError."""
    address = ipaddress.ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address
