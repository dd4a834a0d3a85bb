"""Where a request came from, for limits, sessions and the audit."""

import ipaddress

from django.http import HttpRequest


def address(request: HttpRequest) -> str:
    """The address a request came from; "" where that is unknown.

    It is the one that the connection has, or what a proxy of TRUSTED_PROXIES says: uvicorn sees to that.
    """
    text = str(request.META.get("REMOTE_ADDR") or "")
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return text[:64]
    return str(getattr(found, "ipv4_mapped", None) or found)
