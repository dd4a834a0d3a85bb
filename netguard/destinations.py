"""The rule for hosts that a response refers to: token services, storage for uploads and downloads, scoring URLs.

The host that a user entered may have any allowed address. What it refers to must be the same host, listed by the
operators, or public: otherwise a registry could have requests sent to any service in the network of this machine. On
this machine, each port is a host of its own.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from netguard.addresses import LOOPBACK_HOSTS, is_allowed, is_public, parse_address
from netguard.connect import Rule

DEFAULT_PORTS = {"http": 80, "https": 443}
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
HostAndPort = tuple[str, int | None]


@dataclass(frozen=True)
class Destinations:
    """Hosts that requests for one purpose may reach.

    own: URLs that users entered. listed: hosts that operators listed, such as "auth.internal", "10.0.0.5:5000" or
    "10.0.0.0/8".
    """

    own: tuple[str, ...]
    listed: tuple[str, ...] = ()

    def rule(self, host: str, port: int) -> Rule:
        """Return the rule for the addresses of a host."""
        place = _normalize(host), port
        if place in self._own() or is_listed(host, port, self.listed):
            return is_allowed
        networks = _networks(self.listed)
        is_own_name = any(place[0] == name for name, _ in self._own())

        def rule(address: str) -> bool:
            if is_public(address):
                return True
            found = parse_address(address)
            is_named = (is_own_name and not found.is_loopback) or any(found in network for network in networks)
            return is_named and is_allowed(address)

        return rule

    def is_trusted(self, url: str) -> bool:
        """Return True if the URL is on a host that was entered or listed."""
        parts = _split(url)
        if parts is None:
            return False
        place = _normalize(parts.hostname or ""), _port(parts)
        return place in self._own() or is_listed(place[0], place[1], self.listed)

    def may_refer_to(self, url: str) -> bool:
        """Return False if the URL certainly isn't permitted. The addresses of a name are checked when connecting.

        A host that was neither entered nor listed needs https, because credentials or data are sent there.
        """
        parts = _split(url)
        if parts is None:
            return False
        if self.is_trusted(url):
            return True
        host, base_schemes = parts.hostname or "", set(map(_scheme, self.own))
        if parts.scheme != "https" and not (base_schemes == {"http"} and self._is_own_name(host)):
            return False
        try:
            return self.rule(host, _port(parts))(host)
        except ValueError:  # a name
            return _normalize(host) != _normalize("localhost")

    def _is_own_name(self, host: str) -> bool:
        return any(_normalize(host) == name for name, _ in self._own())

    def _own(self) -> set[HostAndPort]:
        found = (_split(url) for url in self.own)
        return {(_normalize(parts.hostname or ""), _port(parts)) for parts in found if parts is not None}


def is_listed(host: str, port: int | None, listed: Sequence[str]) -> bool:
    """Return True if a host is in the list, with this port or without one."""
    name = _normalize(host)
    for entry in listed:
        parts = _split(f"//{entry}")
        if parts is not None and _normalize(parts.hostname or "") == name and parts.port in {None, port}:
            return True
    return False


def _networks(listed: Sequence[str]) -> list[Network]:
    found = []
    for entry in listed:
        try:
            found.append(ipaddress.ip_network(entry, strict=False))
        except ValueError:
            continue
    return found


def _normalize(host: str) -> str:
    """Return the host in lower case; all names of this machine are the same."""
    name = host.strip("[]").lower().rstrip(".")
    return "localhost" if name in LOOPBACK_HOSTS else name


def _scheme(url: str) -> str:
    return url.partition(":")[0].lower()


def _port(parts: SplitResult) -> int:
    return parts.port or DEFAULT_PORTS.get(parts.scheme, 0)


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts if parts.hostname else None
