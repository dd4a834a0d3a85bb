"""The ASGI application: plain ASGI applications by path, and Django for everything else.

The gateway, uploads, downloads, static files, the live stream and the MMS API run in front of Django. They need neither
sessions nor templates, and Django would read a whole upload before it checks the sender.
"""

import gc
import multiprocessing
import os
from typing import cast

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dashboard.settings")
# Workers can wait for a locked database. Pages and API requests fail earlier, because users and clients don't wait.
os.environ.setdefault("DATABASE_TIMEOUT", "5")

import django
from asgiref.typing import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, Scope
from django.conf import settings

from dashboard.http import asgi
from dashboard.http.body_limits import BodyBudget, BodyLimit
from dashboard.pages import PagesApp
from mms.system.die_with_parent import kill_with_parent

if parent := multiprocessing.parent_process():  # one of WEB_PROCESSES; the port must be free when their parent is gone
    kill_with_parent(cast(int, parent.pid))
django.setup()
# Each application buffers forms and API requests completely, uploads one block at a time.
bodies = BodyBudget()
pages = bodies.holding(settings.DATA_UPLOAD_MAX_MEMORY_SIZE, BodyLimit(cast(ASGI3Application, PagesApp())))


def _applications() -> dict[str, ASGI3Application]:
    """Return the applications by the first segment of the path. Imports happen here, after Django is set up."""
    by_segment: dict[str, ASGI3Application] = {"healthz": pages}
    if "mms" in settings.SERVE:
        from mms.api.application import MAX_BODY_BYTES
        from mms.api.application import application as mms_api
        from mms.gateway.app import GatewayApp
        from mms.gateway.forward import Gateway

        gateway = Gateway(
            settings.MMS_DIR / "routes", settings.METRICS_TOKEN, settings.GATEWAY_METRICS_DIR, settings.ALLOWED_ORIGINS
        )
        by_segment |= {"api": bodies.holding(MAX_BODY_BYTES, mms_api), "scoring": GatewayApp(gateway)}
    if "dashboard" in settings.SERVE:
        from dashboard.files.download import application as downloads
        from dashboard.files.upload import BLOCK_BYTES
        from dashboard.files.upload import application as uploads
        from dashboard.http.hosts import AllowedHostsMiddleware
        from dashboard.http.static import StaticFiles
        from dashboard.live import application as stream

        by_segment |= {
            "files": downloads,
            "uploads": AllowedHostsMiddleware(bodies.holding(BLOCK_BYTES, uploads)),
            "stream": AllowedHostsMiddleware(stream),
            "static": AllowedHostsMiddleware(StaticFiles(pages)),
        }
    return by_segment


async def no_pages(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Respond with 404. An MMS without the dashboard serves only its API, its gateway and /healthz."""
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await asgi.send_response(send, 404, headers, b"This MMS runs without the dashboard. See /api and /scoring.\n")


applications = _applications()
default = pages if "dashboard" in settings.SERVE else no_pages


async def application(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    """Pass the request to the application for its path below SITE_PATH.

    A proxy may remove SITE_PATH from the path or leave it. Requests from this machine never have it.
    """
    # The server sends http scopes only, because its lifespan is off.
    path: str = scope["path"]  # type: ignore[typeddict-item]
    if settings.SITE_PATH and f"{path}/".startswith(f"{settings.SITE_PATH}/"):
        path = path.removeprefix(settings.SITE_PATH) or "/"
        scope = cast(Scope, {**scope, "path": path})
    await applications.get(path.split("/", 2)[1], default)(scope, receive, send)


# Exclude everything imported so far from garbage collection, so that forked processes can share its memory pages.
gc.collect()
gc.freeze()
