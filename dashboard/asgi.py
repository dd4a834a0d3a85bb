"""The ASGI application: plain ASGI parts by path, everything else is Django.

The gateway, the upload and download of files, static files and the MMS API are mounted in front of Django's pages: they
need neither sessions nor templates, and Django would read a whole upload before anybody checked who sends it.
"""

import gc
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, cast

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dashboard.settings")
# A worker can wait for a locked database; a person, or a client of the API with a time-out of its own, is told.
os.environ.setdefault("DATABASE_TIMEOUT", "5")

from django.conf import settings
from django.core.asgi import get_asgi_application

from dashboard.http.body_limits import Bounded

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

pages: Application = Bounded(cast(Application, get_asgi_application()))


def _parts() -> dict[str, Application]:
    """The first segment of a path, and who answers it; imported here, for Django has to be set up first."""
    found: dict[str, Application] = {"healthz": pages}
    if "mms" in settings.SERVE:
        from mms.api.application import application as api
        from mms.gateway.app import Gateway

        found |= {"api": api, "scoring": Gateway(settings.MMS_DIR / "routes", metrics_token=settings.METRICS_TOKEN)}
    if "dashboard" in settings.SERVE:
        from dashboard.files.upload import application as uploads
        from dashboard.http.hosts import KnownHosts
        from dashboard.http.static import StaticFiles
        from dashboard.live import application as stream

        browsers: dict[str, Application] = {"uploads": uploads, "stream": stream, "static": StaticFiles(pages)}
        found |= {"files": uploads, **{name: KnownHosts(part) for name, part in browsers.items()}}
    return found


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """What an MMS without the dashboard says to anything but its API, its gateway and /healthz."""
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send(
        {"type": "http.response.body", "body": b"There are no pages here: this is the MMS alone (/api, /scoring).\n"}
    )


parts = _parts()
elsewhere = pages if "dashboard" in settings.SERVE else nothing


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Hand the request to the part that its path names, else to the pages."""
    first = scope["path"].split("/", 2)[1]
    await parts.get(first, elsewhere)(scope, receive, send)


# Everything imported so far stays: the collector need not look at it again, and so does not touch (and copy) its pages.
gc.collect()
gc.freeze()
