"""The deny list, and the two rules that apply it.

Servers, registries and clusters are often in private networks or on this machine, so `is_allowed` permits those. Models
and assets come from URLs that anyone can type, so `is_public` permits only the public internet. Both reject
addresses that are reserved for a machine's own services, such as the metadata service of a cloud instance, in any
notation.
"""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})  # hosts of URLs that stay on this machine

# Besides link-local addresses, which `ipaddress` knows: https://www.iana.org/assignments/iana-ipv4-special-registry and
# https://www.iana.org/assignments/iana-ipv6-special-registry.
DENIED = tuple(
    ipaddress.ip_network(network)
    for network in (
        "168.63.129.16/32",  # Azure's host agent, which issues credentials
        "100.100.100.200/32",  # metadata service of Alibaba Cloud
        "fd00:ec2::/32",  # metadata service of Amazon EC2
        "0.0.0.0/8",  # "this network"; Linux connects 0.0.0.0 to loopback
        "192.0.0.0/24",  # IETF protocol assignments
        "192.88.99.0/24",  # 6to4 relays
        "::/96",  # IPv4-compatible IPv6
        "64:ff9b::/96",  # NAT64
        "64:ff9b:1::/48",  # local NAT64
        "2001::/23",  # IETF protocol assignments, Teredo among them
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
        "5f00::/16",  # segment routing
        "fec0::/10",  # site-local, deprecated
    )
)


def parse_address(text: str) -> Address:
    """Return a numeric address, without its zone; for an IPv4-mapped IPv6 address, the IPv4 address.

    Raises ValueError if `text` isn't a numeric address.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def is_allowed(text: str) -> bool:
    """Return True if a server, a registry or a cluster may have this numeric address. Raises ValueError."""
    address = parse_address(text)
    if address.is_loopback:
        return True
    return not (address.is_link_local or address.is_multicast or address.is_unspecified or _is_denied(address))


def is_public(text: str) -> bool:
    """Return True if this numeric address is on the public internet. Raises ValueError."""
    address = parse_address(text)
    return address.is_global and not (address.is_multicast or address.is_reserved or _is_denied(address))


def is_forbidden_host(host: str) -> bool:
    """Return True if the host of a URL is a numeric address that isn't allowed.

    Names return False: `netguard.connect` checks them once they are resolved.
    """
    try:
        return not is_allowed(host.strip("[]"))
    except ValueError:
        return False


def _is_denied(address: Address) -> bool:
    return any(address in network for network in DENIED)


def local_host(listening: str) -> str:
    """Return the host at which this machine reaches a program that listens on the address `listening`."""
    try:
        address = ipaddress.ip_address(listening)
    except ValueError:
        return listening
    # uvicorn's sockets for "::" accept IPv6 only.
    return ("::1" if address.version == 6 else "127.0.0.1") if address.is_unspecified else listening


def url_host(host: str) -> str:
    """Return `host` as part of a URL: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
