"""The gateway's own server in a thread of the test process."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import uvloop

from mms.gateway.forward import Gateway
from mms.gateway.server import Server, listen


class GatewayServer:
    """Gateway on a free loopback port; use it as a context manager. The interface is that of tests.asgi_server."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.gateway = Gateway(*arguments, **options)
        self._listening = listen("127.0.0.1", 0)
        self.port: int = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._run()), daemon=True)

    async def _run(self) -> None:
        self._loop, self.server = asyncio.get_running_loop(), Server(self.gateway)
        self._started.set()
        await self.server.run(self._listening)

    def call(self, function: Callable[[], None]) -> None:
        """Call a function in the event loop of the server."""
        self._loop.call_soon_threadsafe(function)

    def __enter__(self) -> "GatewayServer":
        self._thread.start()
        assert self._started.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> float:
        """Shut down as on SIGTERM. Return the seconds it took."""
        began = time.monotonic()
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self.server.drain)
            self._thread.join(30)
        assert not self._thread.is_alive()
        return time.monotonic() - began
