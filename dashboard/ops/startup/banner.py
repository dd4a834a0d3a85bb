"""What `manage.py up` tells the terminal once everything works."""

import http.client
import json
import os
import sys
import textwrap
import time

from django.conf import settings

from mms.services.engine import unsandboxed_reason

PATIENCE = 60.0  # seconds until everything should work


def start(invitation: str, logs: str, keep_open: int) -> None:
    """Fork a process that waits until the site works, prints how to reach it, and ends.

    `invitation` says how the first administrator is made, if there is none; `logs` says where the logs are.
    `keep_open` is a descriptor that belongs to the supervisor, which the caller becomes: this process must not hold it.
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
    """Wait for the site and print its URL, or which part of it does not work; nothing once the supervisor is gone.

    Whoever runs it is also told what services can do to this machine, if no sandbox keeps them from it.
    """
    broken = wait(supervisor)
    if os.getppid() != supervisor:
        return
    if broken:
        print("The site isn't working yet:", *(f"  {name}: {state}" for name, state in broken.items()), sep="\n")
        print(f"The logs are {logs}.")
    else:
        print(f"\n{_what_is_up()}    (stop it with Ctrl-C; logs {logs})")
    if "mms" in settings.SERVE and (warning := unsandboxed_reason()):
        print(textwrap.fill(warning, 120, break_long_words=False, break_on_hyphens=False))
    if invitation:
        print(invitation)


def _what_is_up() -> str:
    if "dashboard" in settings.SERVE:
        return f"The site is up: {settings.SITE_URL}"
    return f"The MMS is up: {settings.GATEWAY_URL}"


def wait(supervisor: int) -> dict[str, str]:
    """Ask /healthz until all is well, PATIENCE is over or the supervisor is gone; returns what does not work."""
    until = time.monotonic() + PATIENCE
    while True:
        parts = health()
        broken = {name: state for name, state in parts.items() if state != "works"}
        if not broken or time.monotonic() > until or os.getppid() != supervisor:
            return broken
        time.sleep(0.25)


def health() -> dict[str, str]:
    """The parts of the site and their states, as /healthz says."""
    host = "127.0.0.1" if settings.HOST in {"0.0.0.0", ""} else settings.HOST  # noqa: S104 - compared, not bound
    connection = http.client.HTTPConnection(host, settings.PORT, timeout=5)
    try:
        connection.request("GET", "/healthz", headers={"Host": settings.ALLOWED_HOSTS[0]})
        parts: dict[str, str] = json.loads(connection.getresponse().read())["parts"]
        return parts
    except (OSError, ValueError, KeyError, http.client.HTTPException):
        return {"web": "not responding"}
    finally:
        connection.close()
