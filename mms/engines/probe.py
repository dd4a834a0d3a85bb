"""Health check of a scoring program over HTTP, the same for all engines."""

import json
import socket
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

from mms.system import service_sockets

PROBE_TIMEOUT_SECONDS = 2.0
MAX_MESSAGE_CHARS = 300
MAX_RESPONSE_BYTES = 65536  # the program runs untrusted code, so its response is read with a limit


class UnixConnection(HTTPConnection):
    """An HTTP connection over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self._connect_to(self.path)

    def _connect_to(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(path)


class ServiceConnection(UnixConnection):
    """An HTTP connection to a service, only over the socket that was created for it."""

    def connect(self) -> None:
        """Verify the socket and connect to it. Raises OSError."""
        with service_sockets.verified(self.path) as path:
            self._connect_to(path)


@dataclass(frozen=True)
class ProbeResult:
    """Result of `GET /`. `status` is 0 without a response; `reason` is a clause that describes the result."""

    status: int
    reason: str = ""
    is_starting: bool = False  # True if init() hasn't returned
    in_flight: int | None = None  # open requests; None if unknown


def connect(address: str, timeout: float) -> HTTPConnection:
    """Return a connection to `unix:/path` or `http://host:port`, not opened yet."""
    if address.startswith("unix:"):
        return ServiceConnection(address.removeprefix("unix:"), timeout)
    return HTTPConnection(urlsplit(address).netloc, timeout=timeout)


def probe(address: str, timeout: float = PROBE_TIMEOUT_SECONDS) -> ProbeResult:
    """Send `GET /` to the scoring program at `address`. Connection errors are part of the result, not raised."""
    connection = connect(address, timeout)
    try:
        connection.request("GET", "/", headers={"Connection": "close"})
        response = connection.getresponse()
        return _parse_response(response.status, response.read(MAX_RESPONSE_BYTES))
    except TimeoutError:
        return ProbeResult(0, f"it didn't respond within {timeout:g} s")
    except (OSError, HTTPException):
        return ProbeResult(0, "it doesn't respond")
    finally:
        connection.close()


def _parse_response(status: int, body: bytes) -> ProbeResult:
    """Parse the response of mms/scoring/server.py. From any other response, only the status is used."""
    try:
        content = json.loads(body)
        error = content.get("error") or {}
        code, message, in_flight = error.get("code"), error.get("message"), content.get("inFlight")
    except (ValueError, AttributeError, RecursionError):
        code = message = in_flight = None
    reason = f"its health check returned {status}" + (
        f": {message[:MAX_MESSAGE_CHARS].removesuffix('.')}" if isinstance(message, str) else ""
    )
    return ProbeResult(
        status, reason, code == "Starting", in_flight if type(in_flight) is int and in_flight >= 0 else None
    )
