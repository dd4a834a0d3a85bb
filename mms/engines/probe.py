"""Ask a scoring program over HTTP how it is: the same on every engine."""

import json
import socket
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

PROBE_TIMEOUT = 2.0  # seconds
MESSAGE_MAX = 300
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
    starting: bool = False  # it says that init() has not returned yet
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
        return _answer(response.status, response.read(ANSWER_MAX_BYTES))
    except TimeoutError:
        return Answer(0, f"it has not answered within {timeout:g} s")
    except (OSError, HTTPException):
        return Answer(0, "it does not answer")
    finally:
        connection.close()


def _answer(status: int, body: bytes) -> Answer:
    """What the program says about itself (mms/scoring/server.py), or the little that can be made of anything else."""
    try:
        said = json.loads(body)
        error = said.get("error") or {}
        code, message, in_flight = error.get("code"), error.get("message"), said.get("inFlight")
    except (ValueError, AttributeError, RecursionError):
        code = message = in_flight = None
    reason = f"its health answer is {status}" + (f": {message[:MESSAGE_MAX]}" if isinstance(message, str) else "")
    return Answer(status, reason, code == "Starting", in_flight if type(in_flight) is int and in_flight >= 0 else None)
