"""Versions, and settings that are unsafe or invalid in production."""

import platform
import sys
from collections.abc import Iterator
from importlib.metadata import version
from urllib.parse import urlsplit

from django.conf import settings
from django.http.request import validate_host

from dashboard.ops.doctor.finding import CheckContext, Finding, failed, ok, warning
from dashboard.version import __version__
from netguard.addresses import LOOPBACK_HOSTS, url_host

PYTHON_VERSIONS = ((3, 11), (3, 13))  # oldest and newest supported


def check(context: CheckContext) -> Iterator[Finding]:
    """Report versions and check settings."""
    yield _check_python()
    libraries = ", ".join(f"{name} {version(name)}" for name in ("Django", "celery", "kombu", "redis", "uvicorn"))
    yield ok("versions", f"{libraries}.")
    yield _check_debug()
    if "dashboard" in settings.SERVE:
        yield from _check_site_url()


def _check_python() -> Finding:
    message = (
        f"Model Management {__version__}, Python {platform.python_version()}, {platform.system()} {platform.release()}."
    )
    if PYTHON_VERSIONS[0] <= sys.version_info[:2] <= PYTHON_VERSIONS[1]:
        return ok("versions", message)
    return warning("versions", message, "This Python version is untested. Use Python 3.11, 3.12 or 3.13.")


def _check_debug() -> Finding:
    if not settings.DEBUG:
        return ok("settings", "DEBUG is off.")
    message = "DEBUG is on: error pages show code and settings to everyone."
    return warning("settings", message, "Start the site without DEBUG.")


def _check_site_url() -> Iterator[Finding]:
    url = urlsplit(settings.SITE_URL)
    host = url_host(url.hostname or "")
    if not validate_host(host, settings.ALLOWED_HOSTS):
        message = f"The site rejects requests to its own address: {host} (SITE_URL) is not in ALLOWED_HOSTS."
        yield failed("settings", message, f"Add {host} to ALLOWED_HOSTS.")
    if url.scheme == "http" and url.hostname not in LOOPBACK_HOSTS:
        message = f"The address {settings.SITE_URL} is unencrypted: passwords can be read on the network."
        yield warning("settings", message, "Put a proxy with TLS in front and set SITE_URL to its https:// address.")
    else:
        yield ok("settings", f"The address of the site is {settings.SITE_URL}.")
