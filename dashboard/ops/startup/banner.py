"""The message that `manage.py up` prints on the terminal when the site is ready."""

import http.client
import json
import os
import sys
import textwrap
import time

from django.conf import settings

from mms.services.engine import unsandboxed_reason

TIMEOUT_SECONDS = 60.0  # in which every part should start


def start(invitation: str, logs: str, keep_open: int) -> None:
    """Fork a process that waits until the site works, prints its address, and exits.

    `invitation`: how to create the first administrator, or "". `logs`: where the logs are. `keep_open`: a file
    descriptor for the supervisor, which the calling process becomes. The forked process closes it.
    """
    sys.stdout.flush()
    supervisor = os.getpid()
    if os.fork():
        return
    os.close(keep_open)
    try:
        announce(invitation, logs, supervisor)
        sys.stdout.flush()
    finally:
        os._exit(0)


def announce(invitation: str, logs: str, supervisor: int) -> None:
    """Wait for the site, then print its URL or the parts that don't work. Print nothing if the supervisor has exited.

    If services run without a sandbox, also print what they can access.
    """
    broken = wait(supervisor)
    if os.getppid() != supervisor:
        return
    if broken:
        print("The site is not working yet:", *(f"  {name}: {state}" for name, state in broken.items()), sep="\n")
        print(f"The logs are {logs}. To find out what to do, run `{settings.COMMAND} doctor`.")
    else:
        print(f"\n{_address()}    (stop it with Ctrl-C; logs {logs})")
    if "mms" in settings.SERVE and not broken:
        print(f"Scoring URLs begin with {settings.GATEWAY_URL}/scoring/")
    if "mms" in settings.SERVE and (warning := unsandboxed_reason()):
        print(textwrap.fill(warning, 120, break_long_words=False, break_on_hyphens=False))
    if invitation:
        print(invitation)


def _address() -> str:
    if "dashboard" in settings.SERVE:
        return f"The site is up: {settings.SITE_URL}"
    return f"The MMS is up: {settings.MMS_URL}"


def wait(supervisor: int) -> dict[str, str]:
    """Poll /healthz until every part works, the time is up or the supervisor has exited. Return the broken parts."""
    until = time.monotonic() + TIMEOUT_SECONDS
    while True:
        parts = health()
        broken = {name: state for name, state in parts.items() if state != "works"}
        if not broken or time.monotonic() > until or os.getppid() != supervisor:
            return broken
        time.sleep(0.25)


def health() -> dict[str, str]:
    """Return the parts of the site and their states from /healthz."""
    connection = http.client.HTTPConnection(settings.LOCAL_HOST, settings.PORT, timeout=5)
    try:
        connection.request("GET", "/healthz", headers={"Host": settings.ALLOWED_HOSTS[0]})
        parts: dict[str, str] = json.loads(connection.getresponse().read())["parts"]
        return parts
    except (OSError, ValueError, KeyError, http.client.HTTPException):
        return {"web": "not responding"}
    finally:
        connection.close()
