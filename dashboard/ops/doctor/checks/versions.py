"""What runs here, in which version, and settings that are wrong for a site that people use."""

import platform
import sys
from collections.abc import Iterator
from importlib.metadata import version
from urllib.parse import urlsplit

from django.conf import settings
from django.http.request import validate_host

from dashboard.ops.doctor.finding import Asked, Finding, failed, ok, warning
from dashboard.version import __version__
from netguard.addresses import LOOPBACK_HOSTS

PYTHONS = ((3, 11), (3, 13))


def check(asked: Asked) -> Iterator[Finding]:
    yield _python()
    libraries = ", ".join(f"{name} {version(name)}" for name in ("Django", "celery", "kombu", "redis", "uvicorn"))
    yield ok("versions", f"{libraries}.")
    yield _debug()
    if "dashboard" in settings.SERVE:
        yield from _address()


def _python() -> Finding:
    says = (
        f"Model Management {__version__}, Python {platform.python_version()}, {platform.system()} {platform.release()}."
    )
    if PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        return ok("versions", says)
    return warning("versions", says, "Use a Python from 3.11 to 3.13: others were never tried.")


def _debug() -> Finding:
    if not settings.DEBUG:
        return ok("settings", "DEBUG is off.")
    says = "DEBUG is on: error pages show the code and the settings to everybody."
    return warning("settings", says, "Start the site without DEBUG.")


def _address() -> Iterator[Finding]:
    url = urlsplit(settings.SITE_URL)
    host = url.hostname or ""
    if not validate_host(host, settings.ALLOWED_HOSTS):
        says = f"The site refuses its own address: {host} (SITE_URL) is not in ALLOWED_HOSTS."
        yield failed("settings", says, f"Add {host} to ALLOWED_HOSTS.")
    if url.scheme == "http" and host not in LOOPBACK_HOSTS:
        says = f"People reach the site by {settings.SITE_URL}, unencrypted: passwords can be read on the way."
        yield warning("settings", says, "Put a proxy with TLS in front and set SITE_URL to its https:// address.")
    else:
        yield ok("settings", f"People reach the site by {settings.SITE_URL}.")
