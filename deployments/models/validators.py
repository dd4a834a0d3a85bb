"""Which addresses a server, a registry or an authority can have: for what is typed, what is tried and what is kept.

Numbers that are never called (addresses.py) are refused here, so that people see it at once; names are judged when they
are connected to.
"""

import re
from urllib.parse import SplitResult, urlsplit

from django.core.exceptions import ValidationError

from deployments.client.urls import web_address
from netguard.addresses import LOOPBACK_HOSTS, is_forbidden_host

BUNDLED_STORE = "oci://local"  # the bundled server's own store: nothing is pushed anywhere
NEVER_CALLED = "This address is reserved for a machine's own services and is never called."


def check_base_url(value: str) -> None:
    """Raise ValidationError unless `value` is scheme and host of a server, as in https://mms.example.com."""
    parts = _web_address(value)
    if re.search(r"/api/?$", parts.path):
        raise ValidationError("Leave out /api. It is added automatically.")


def check_authority(value: str) -> None:
    """The same of the place that gives tokens. The client secret goes there, so it is https, or on this machine."""
    parts = _web_address(value)
    if parts.scheme != "https" and parts.hostname not in LOOPBACK_HOSTS:
        raise ValidationError("Start with https://, because the client secret is sent there.")


def check_location(value: str) -> None:
    """The same of a registry: host, perhaps port and path, with or without scheme; or the bundled server's store."""
    if value == BUNDLED_STORE:
        return
    if "://" in value and not value.startswith(("http://", "https://")):
        raise ValidationError(f"Enter the registry's host, such as example.azurecr.io, or {BUNDLED_STORE}.")
    _web_address(registry_url(value))


def registry_url(location: str) -> str:
    """The base URL of a registry's location, with its path. Without scheme it is https, but http on loopback."""
    if "://" in location:
        return location.rstrip("/")
    try:
        host = urlsplit(f"//{location}").hostname
    except ValueError:
        host = None
    return f"{'http' if host in LOOPBACK_HOSTS else 'https'}://{location.rstrip('/')}"


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port: what a secret is entered for. ("", "", None) of what is no URL."""
    try:
        parts = urlsplit(url)
        return parts.scheme, (parts.hostname or "").lower(), parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return "", "", None


def _web_address(value: str) -> SplitResult:
    parts = web_address(value)
    if parts is None or re.search(r"[\s\\]|[^ -~]", value):
        raise ValidationError("Enter the full URL, starting with http:// or https://.")
    if "@" in parts.netloc:
        raise ValidationError("Leave out the user and password before the host. They would be stored unencrypted.")
    if parts.query or parts.fragment or "?" in value or "#" in value:
        raise ValidationError("Leave out the part that starts with ? or #.")
    if is_forbidden_host(parts.hostname or ""):
        raise ValidationError(NEVER_CALLED)
    return parts
