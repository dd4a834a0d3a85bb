"""Django's pages as an ASGI application that runs each request in one thread.

Django's own ASGI handler switches threads for every middleware, and opens a database connection for every request.
Here the whole chain runs synchronously, in a thread that reuses its connection.
"""

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, cast

from django.conf import settings
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.core.handlers.base import BaseHandler
from django.core.signals import request_started
from django.urls import set_script_prefix

MAX_THREADS = 24  # per process, each with a database connection; some requests wait for a server or a lock


class PagesApp(ASGIHandler):
    """The ASGI application. Call django.setup() before creating it."""

    def __init__(self) -> None:
        BaseHandler.__init__(self)
        self.load_middleware(is_async=False)
        self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="page")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Respond to one HTTP request."""
        if scope["type"] != "http":  # required by the ASGI specification
            raise ValueError(f"Django has no {scope['type']} connections.")
        try:
            body = cast(BinaryIO, await self.read_body(receive))
        except RequestAborted:
            return
        with body:
            context = contextvars.copy_context()
            loop = asyncio.get_running_loop()
            response = await loop.run_in_executor(self._threads, context.run, self._respond, scope, body)
            await self.send_response(response, send)

    def _respond(self, scope: Any, body: BinaryIO) -> Any:
        scope = {**scope, "path": settings.SITE_PATH + scope["path"]}
        set_script_prefix(get_script_prefix(scope))
        request_started.send(sender=self.__class__, scope=scope)
        request, error = self.create_request(scope, body)
        response: Any = error if request is None else self.get_response(request)
        response.close()  # sends request_finished; closed responses can still be sent
        return response
