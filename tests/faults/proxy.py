"""A TCP proxy on loopback between a browser and the site, which a test can cut, silently or visibly."""

import contextlib
import socket
import threading


class Proxy:
    """Proxy that listens on `proxy.port` and forwards to `port`: `with Proxy(port) as proxy:`."""

    def __init__(self, target: int) -> None:
        self.target = target
        self._flows = threading.Event()  # while cleared, received bytes aren't forwarded
        self._flows.set()
        self._refuses = False
        self._open: set[socket.socket] = set()

    def __enter__(self) -> "Proxy":
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._flows.set()
        self._listener.close()
        self._hang_up()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def drop_everything(self) -> None:
        """Act like a network that drops every packet, without closing connections."""
        self._flows.clear()

    def close_all(self) -> None:
        """Close every connection, and close new ones immediately."""
        self._refuses = True
        self._hang_up()

    def restore(self) -> None:
        self._refuses = False
        self._flows.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                if self._refuses:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self.target))
                self._open |= {near, far}
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _hang_up(self) -> None:
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._open = set()
