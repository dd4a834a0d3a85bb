"""The URLs of the site, its gateway and its identity provider. Only a thorough check sends requests to them."""

import json
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import requests
from django.conf import settings

from dashboard.ops.doctor.advice import log_hint, restart
from dashboard.ops.doctor.finding import CheckContext, Finding, failed, milliseconds, ok, warning
from netguard.addresses import LOOPBACK_HOSTS, url_host

TIMEOUT_SECONDS = 3.0  # for connecting, and for each read
UNKNOWN_SERVICE = "doctor"  # not a UUID, so no service has this ID
_PUBLIC_GATEWAY_ADVICE = (
    "Clients use this address. Check GATEWAY_URL, and that the proxy passes /scoring/ to GATEWAY_PORT. If it works "
    "from other machines, ignore this."
)


def check(context: CheckContext) -> Iterator[Finding]:
    """Check that the site answers at the addresses in its settings."""
    has_pages = "dashboard" in settings.SERVE
    if has_pages and settings.SECURE and not settings.TRUSTED_PROXIES:
        message = (
            "SITE_URL starts with https:// but TRUSTED_PROXIES is empty, so all users appear to have the proxy's "
            "IP address."
        )
        yield warning("proxy", message, "Set TRUSTED_PROXIES to the address from which the proxy connects.")
    if not context.thorough:
        return
    if has_pages and settings.OIDC_ISSUER:
        yield _check_provider()
    yield _check_web()
    if has_pages and urlsplit(settings.SITE_URL).hostname not in LOOPBACK_HOSTS:
        yield _check_site_url()
    if "mms" in settings.SERVE:
        local = local_url(settings.GATEWAY_PORT)
        yield _check_gateway(local, f"{restart('gateway')} {log_hint('gateway')}", failed)
        if local != settings.GATEWAY_URL:
            yield _check_gateway(settings.GATEWAY_URL, _PUBLIC_GATEWAY_ADVICE, warning)


def local_url(port: int | None = None) -> str:
    """Return the URL at which the program on `port`, by default the web server, listens on this machine."""
    return f"http://{url_host(settings.LOCAL_HOST)}:{port or settings.PORT}"


def _check_web() -> Finding:
    try:
        response, seconds = _get(f"{local_url()}/healthz", Host=settings.ALLOWED_HOSTS[0])
        parts = json.loads(response.text)["parts"]
    except (requests.RequestException, ValueError, KeyError) as error:
        message = f"Couldn't reach the site at {local_url()}: {_reason(error)}."
        return failed("web", message, f"{restart('web')} {log_hint('web')}")
    broken = [name for name, state in parts.items() if state != "works"]
    if broken:
        message = f"Responds at {local_url()} in {milliseconds(seconds)} and reports problems: {', '.join(broken)}."
        return warning("web", message, "See the findings about these parts.")
    return ok("web", f"Responds at {local_url()} in {milliseconds(seconds)}.")


def _check_site_url() -> Finding:
    """Check the public address. From this machine, it may pass through a proxy or be unreachable."""
    try:
        response, seconds = _get(f"{settings.SITE_URL}/healthz")
        json.loads(response.text)["parts"]
    except (requests.RequestException, ValueError, KeyError) as error:
        message = f"Couldn't reach the site at {settings.SITE_URL} from this machine: {_reason(error)}."
        advice = "If it works from other machines, ignore this. Otherwise, check the proxy and SITE_URL."
        return warning("web", message, advice)
    return ok("web", f"Responds at {settings.SITE_URL} in {milliseconds(seconds)}.")


def _check_provider() -> Finding:
    try:
        response, seconds = _get(f"{settings.OIDC_ISSUER}/.well-known/openid-configuration")
        issuer = str(json.loads(response.text)["issuer"]).rstrip("/")
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        message = f"Couldn't read the configuration of the identity provider {settings.OIDC_ISSUER}: {_reason(error)}."
        advice = "Until this is fixed, no one can sign in with it. Check OIDC_ISSUER and the network of this machine."
        return failed("provider", message, advice)
    if issuer != settings.OIDC_ISSUER:
        message = f"The identity provider at {settings.OIDC_ISSUER} names itself {issuer[:200]!r}."
        return failed("provider", message, "Set OIDC_ISSUER to this name.")
    return ok("provider", f"The identity provider responds in {milliseconds(seconds)}.")


def _check_gateway(base: str, advice: str, problem: Callable[[str, str, str], Finding]) -> Finding:
    """Check the gateway by its response for an unknown service, which no other server sends."""
    try:
        response, seconds = _get(f"{base}/scoring/{UNKNOWN_SERVICE}/score")
        code = json.loads(response.text)["error"]["code"]
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        message = f"Couldn't reach the gateway at {base}: {_reason(error)}."
        return problem("gateway", message, advice)
    if code != "NotFound":
        message = f"The gateway at {base} can't read its routes (error {code})."
        return failed("gateway", message, f"Check the files in {settings.MMS_DIR / 'routes'}. {restart('mms-worker')}")
    return ok("gateway", f"Responds at {base} in {milliseconds(seconds)}.")


def _get(url: str, **headers: str) -> tuple[requests.Response, float]:
    """Return the response and the seconds it took."""
    started = time.monotonic()
    headers = {"Accept": "application/json", **headers}
    response = requests.get(url, headers=headers, timeout=TIMEOUT_SECONDS, allow_redirects=False)
    return response, time.monotonic() - started


def _reason(error: Exception) -> str:
    if isinstance(error, requests.Timeout):
        return f"no response within {TIMEOUT_SECONDS:g} s"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return "no response" if isinstance(error, requests.RequestException) else "the response is not from this software"
