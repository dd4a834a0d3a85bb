"""The addresses of the site: are they the ones it answers at? Called only when asked to be thorough."""

import json
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import requests
from django.conf import settings

from dashboard.ops.doctor.advice import look, restart
from dashboard.ops.doctor.finding import Asked, Finding, failed, milliseconds, ok, warning
from netguard.addresses import LOOPBACK_HOSTS

CALL = 3.0  # seconds for each step
NOTHING = "doctor"  # the id of no service


def check(asked: Asked) -> Iterator[Finding]:
    pages = "dashboard" in settings.SERVE
    if pages and settings.SECURE and not settings.TRUSTED_PROXIES:
        says = "SITE_URL begins with https://, and TRUSTED_PROXIES names no proxy: everybody has its address."
        yield warning("proxy", says, "Set TRUSTED_PROXIES to the address that the proxy calls from.")
    if not asked.thorough:
        return
    if pages and settings.OIDC_ISSUER:
        yield _provider()
    yield _web()
    if pages and urlsplit(settings.SITE_URL).hostname not in LOOPBACK_HOSTS:
        yield _site_url()
    if "mms" in settings.SERVE:
        yield _gateway()


def here() -> str:
    """The address at which the web process of this machine listens."""
    host = "127.0.0.1" if settings.HOST in {"0.0.0.0", "::", ""} else settings.HOST  # noqa: S104 - compared, not bound
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.PORT}"


def _web() -> Finding:
    try:
        answer, took = _get(f"{here()}/healthz", Host=settings.ALLOWED_HOSTS[0])
        parts = json.loads(answer.text)["parts"]
    except (requests.RequestException, ValueError, KeyError) as error:
        says = f"Nothing that is ours answers at {here()}: {_reason(error)}."
        return failed("web", says, f"{restart('web')} {look('web')}")
    wrong = [name for name, state in parts.items() if state != "works"]
    if wrong:
        says = f"It answers at {here()} in {milliseconds(took)} and reports trouble with {', '.join(wrong)}."
        return warning("web", says, "See what is said of these.")
    return ok("web", f"It answers at {here()} in {milliseconds(took)}.")


def _site_url() -> Finding:
    """The address that people use; from here it may lead through a proxy, or nowhere."""
    try:
        answer, took = _get(f"{settings.SITE_URL}/healthz")
        json.loads(answer.text)["parts"]
    except (requests.RequestException, ValueError, KeyError) as error:
        says = f"From this machine the site does not answer at its address {settings.SITE_URL}: {_reason(error)}."
        return warning("web", says, "If it does for other people all is well; else look at the proxy, and at SITE_URL.")
    return ok("web", f"It answers at its address {settings.SITE_URL} in {milliseconds(took)}.")


def _provider() -> Finding:
    try:
        answer, took = _get(f"{settings.OIDC_ISSUER}/.well-known/openid-configuration")
        issuer = str(json.loads(answer.text)["issuer"]).rstrip("/")
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        says = f"The identity provider {settings.OIDC_ISSUER} does not say what it is: {_reason(error)}."
        return failed("provider", says, "Nobody can sign in with it. Is OIDC_ISSUER right, and reached from here?")
    if issuer != settings.OIDC_ISSUER:
        says = f"The identity provider {settings.OIDC_ISSUER} calls itself {issuer[:200]!r}."
        return failed("provider", says, "Set OIDC_ISSUER to what it calls itself.")
    return ok("provider", f"The identity provider answers in {milliseconds(took)}.")


def _gateway() -> Finding:
    """A gateway refuses an unknown service in words of its own, which nobody else answers by chance."""
    url = f"{settings.GATEWAY_URL}/scoring/{NOTHING}/score"
    advice = f"Is GATEWAY_URL right? {restart('web')} {look('web')}"
    try:
        answer, took = _get(url)
        code = json.loads(answer.text)["error"]["code"]
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        return failed("gateway", f"No gateway answers at {settings.GATEWAY_URL}: {_reason(error)}.", advice)
    if code != "NotFound":
        says = f"The gateway at {settings.GATEWAY_URL} does not know its routes ({code})."
        return failed("gateway", says, f"Look at {settings.MMS_DIR / 'routes'}. {restart('mms-worker')}")
    return ok("gateway", f"It answers at {settings.GATEWAY_URL} in {milliseconds(took)}.")


def _get(url: str, **headers: str) -> tuple[requests.Response, float]:
    started = time.monotonic()
    answer = requests.get(url, headers={"Accept": "application/json", **headers}, timeout=CALL, allow_redirects=False)
    return answer, time.monotonic() - started


def _reason(error: Exception) -> str:
    if isinstance(error, requests.Timeout):
        return f"it takes longer than {CALL:g} s"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return "no answer" if isinstance(error, requests.RequestException) else "the answer is not the one of this site"
