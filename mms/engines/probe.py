"""Ask a scoring program over HTTP how it is: the same on every engine."""

import json
import socket
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

PROBE_TIMEOUT = 2.0  # seconds
ANSWER_MAX_BYTES = 65536  # the program runs foreign code: nothing it sends is read without a limit


class UnixConnection(HTTPConnection):
    """An HTTP connection over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


@dataclass(frozen=True)
class Answer:
    """What `GET /` said. `status` is 0 where nothing answered; `reason` says so in words."""

    status: int
    reason: str = ""
    in_flight: int | None = None  # requests being answered; None where the program does not say


def connect(address: str, timeout: float) -> HTTPConnection:
    """A connection to `unix:/path` or `http://host:port`, not opened yet."""
    if address.startswith("unix:"):
        return UnixConnection(address.removeprefix("unix:"), timeout)
    return HTTPConnection(urlsplit(address).netloc, timeout=timeout)


def probe(address: str, timeout: float = PROBE_TIMEOUT) -> Answer:
    """`GET /` of the scoring program at `address`. Never raises: no answer is an answer too."""
    connection = connect(address, timeout)
    try:
        connection.request("GET", "/", headers={"Connection": "close"})
        response = connection.getresponse()
        return Answer(
            response.status, f"its health answer is {response.status}", _in_flight(response.read(ANSWER_MAX_BYTES))
        )
    except TimeoutError:
        return Answer(0, f"it has not answered within {timeout:g} s")
    except (OSError, HTTPException):
        return Answer(0, "it does not answer")
    finally:
        connection.close()


def _in_flight(body: bytes) -> int | None:
    try:
        count = json.loads(body)["inFlight"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else None
