"""The request as views see it, and the client's IP address."""

import ipaddress

from django.contrib.auth.models import User
from django.http import HttpRequest
from django.urls import ResolverMatch
from django_htmx.middleware import HtmxDetails

from deployments.models import HostingAccount


class Request(HttpRequest):
    """A request with the attributes that middleware and guards set, for annotations."""

    user: User
    resolver_match: ResolverMatch
    htmx: HtmxDetails
    account: HostingAccount  # the account in the URL
    access_level: int  # of the user, or the API token, in that account
    stream_position: str  # of the live stream before the page's rows were read
    via: str  # name of the interface in the audit log, if it isn't a page


def client_ip(request: HttpRequest) -> str:
    """Return the client's IP address, or "" if it is unknown.

    It is the peer of the connection, or the address that a proxy of TRUSTED_PROXIES reports. Uvicorn resolves this.
    """
    text = str(request.META.get("REMOTE_ADDR") or "")
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text[:64]
    return str(getattr(address, "ipv4_mapped", None) or address)
