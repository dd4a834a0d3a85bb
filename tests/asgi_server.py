"""A real uvicorn server in a thread of the test process, for plain ASGI applications."""

import threading
import time
from typing import Any

import uvicorn


class Server:
    """Uvicorn server for `application` on a free loopback port; use it as a context manager."""

    def __init__(self, application: Any, **settings: Any) -> None:
        settings = {"lifespan": "off", "log_level": "warning", "timeout_graceful_shutdown": 2, **settings}
        config = uvicorn.Config(application, host="127.0.0.1", port=0, access_log=False, **settings)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self.port = 0

    def __enter__(self) -> "Server":
        self._thread.start()
        for _ in range(500):
            if self._server.started:
                self.port = self._server.servers[0].sockets[0].getsockname()[1]
                return self
            time.sleep(0.01)
        raise AssertionError("uvicorn does not start")

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> float:
        """Shut down as on SIGTERM. Return the seconds it took."""
        began = time.monotonic()
        self._server.should_exit = True
        self._thread.join(20)
        assert not self._thread.is_alive()
        return time.monotonic() - began

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"
