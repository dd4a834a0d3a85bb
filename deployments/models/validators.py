"""Validators for the addresses of servers, registries and authorities.

Forbidden numeric addresses (`netguard.addresses`) are rejected here, while the user can correct them. Host names are
checked on connecting.
"""

import re
from urllib.parse import SplitResult, urlsplit

from django.core.exceptions import ValidationError

from deployments.client.urls import web_address
from netguard.addresses import LOOPBACK_HOSTS, is_forbidden_host

BUNDLED_STORE = "oci://local"  # the bundled server's image store; nothing is pushed
NEVER_CALLED = "This address is reserved for a machine's own services and is never called."


def check_base_url(value: str) -> None:
    """Raise ValidationError unless `value` is scheme and host of a server, as in https://mms.example.com."""
    parts = _web_address(value)
    if re.search(r"/api/?$", parts.path):
        raise ValidationError("Leave out /api. It is added automatically.")


def check_authority(value: str) -> None:
    """Raise ValidationError unless `value` is a base URL for tokens: https, or any scheme on loopback."""
    parts = _web_address(value)
    if parts.scheme != "https" and parts.hostname not in LOOPBACK_HOSTS:
        raise ValidationError("Start with https://, because the client secret is sent there.")


def check_location(value: str) -> None:
    """Raise ValidationError unless `value` is a registry (host, optional port, path and scheme) or BUNDLED_STORE."""
    if value == BUNDLED_STORE:
        return
    if "://" in value and not value.startswith(("http://", "https://")):
        raise ValidationError(f"Enter the registry's host, such as example.azurecr.io, or {BUNDLED_STORE}.")
    _web_address(registry_url(value))


def registry_url(location: str) -> str:
    """Return the base URL of a registry location. The default scheme is https, on loopback http."""
    if "://" in location:
        return location.rstrip("/")
    try:
        host = urlsplit(f"//{location}").hostname
    except ValueError:
        host = None
    return f"{'http' if host in LOOPBACK_HOSTS else 'https'}://{location.rstrip('/')}"


def origin(url: str) -> tuple[str, str, int | None]:
    """Return scheme, host and port of a URL, which secrets are bound to; ("", "", None) if it is invalid."""
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
        raise ValidationError("Remove the user name and password from the URL. They would be stored unencrypted.")
    if parts.query or parts.fragment or "?" in value or "#" in value:
        raise ValidationError("Leave out the part that starts with ? or #.")
    if is_forbidden_host(parts.hostname or ""):
        raise ValidationError(NEVER_CALLED)
    return parts
