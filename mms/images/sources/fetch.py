"""Downloads what people name by URL: http and https only, bounded in size and time, never out of the private network.

netguard checks the address that is connected to, at every hop of a redirect. For the same reason no proxy is used here:
it would choose the address.
"""

import contextlib
import hashlib
import http.client
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from mms.system import disk
from netguard.addresses import is_allowed, is_public
from netguard.connect import ForbiddenAddressError, open_socket

CHUNK_BYTES = 1 << 18
MAX_REDIRECTS = 5
IDLE_SECONDS = 30.0  # seconds a server may be silent
REDIRECT_STATUSES = {301, 302, 303, 307, 308}
DEFAULT_PORTS = {"http": 80, "https": 443}


class FetchError(Exception):
    """The URL gave nothing usable. The text says what happened, for people; it holds no query string."""


@dataclass(frozen=True)
class Policy:
    """What a download may do. What lies below `allow_below` is exempt from the rule about addresses, e.g.
    "http://10.0.0.5:8000/files/": the uploads of a site, and nothing else that the site answers to its own machine.
    """

    max_bytes: int
    allow_private: bool = False
    allow_below: tuple[str, ...] = ()
    seconds: float = 1500.0  # for one download, redirects included

    def exempts(self, url: SplitResult) -> bool:
        return self.allow_private or any(_lies_below(urlsplit(base), url) for base in self.allow_below)


@dataclass(frozen=True)
class Fetched:
    sha256: str
    size: int
    mime_type: str


def fetch(url: str, destination: Path, policy: Policy) -> Fetched:
    """Stream `url` into the new file `destination`. Raises FetchError, OSError on a full disk; then no file is left."""
    with destination.open("xb") as file:
        try:
            return _download(url, file, policy)
        except BaseException:
            destination.unlink()
            raise


def _download(url: str, file: BinaryIO, policy: Policy) -> Fetched:
    with _answer(url, policy, time.monotonic() + policy.seconds) as response:
        _refuse_size(response.length or 0, url, policy)
        digest, size = _copy(response, file, url, policy)
        return Fetched(digest, size, response.headers.get_content_type())


def redact_url(url: str) -> str:
    """`url` as logs and errors show it: without user, query and fragment, where keys are."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"


def base_name(url: str) -> str:
    """The last part of the URL's path, decoded; "" if there is none that can be a file name."""
    name = unquote(urlsplit(url).path).rsplit("/", 1)[-1]
    return "" if name in {"", ".", ".."} or not name.isprintable() or len(name.encode()) > 255 else name


def _lies_below(base: SplitResult, url: SplitResult) -> bool:
    """Whether the path of `url` begins as that of `base`, and no server or proxy could take it for another one."""
    if origin(base) != origin(url) or not url.path.startswith(base.path):
        return False
    path = unquote(unquote(unquote(url.path)))
    dots = any(part.partition(";")[0] in {".", ".."} for part in path.split("/"))
    return not (dots or "\\" in path or "//" in path)


def origin(url: SplitResult) -> tuple[str, str, int | None]:
    return url.scheme, (url.hostname or "").lower(), url.port or DEFAULT_PORTS.get(url.scheme)


# --- one hop after the other --------------------------------------------------------------------------------------


@contextlib.contextmanager
def _answer(url: str, policy: Policy, deadline: float) -> Iterator[http.client.HTTPResponse]:
    """The 200 answer that `url` leads to. Every way of failing is a FetchError, that of the reader inside too."""
    for _ in range(MAX_REDIRECTS + 1):
        parts = _checked(url)
        with (
            _reading(parts, deadline),
            contextlib.closing(_connect(parts, policy, deadline)) as connection,
            _cut_off(connection, deadline),
        ):
            response = _get(connection, parts)
            if response.status not in REDIRECT_STATUSES:
                _refuse_status(response, url)
                yield response
                if time.monotonic() >= deadline:  # a connection that was cut off looks like one that came to its end
                    raise TimeoutError
                return
            url = _joined(url, response.headers.get("Location", ""))
    raise FetchError(f"{redact_url(url)}: more than {MAX_REDIRECTS} redirects.")


@contextlib.contextmanager
def _reading(url: SplitResult, deadline: float) -> Iterator[None]:
    """Says in words what goes wrong on the way."""
    where = redact_url(url.geturl())
    try:
        yield
    except (OSError, ValueError, http.client.HTTPException) as error:
        if disk.is_full(error):  # ours, not the server's
            raise
        if time.monotonic() >= deadline:
            raise FetchError(f"{where}: the download took too long and was stopped.") from error
        raise FetchError(f"{where}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return "this host name is not known."
    if isinstance(error, TimeoutError):
        return f"the server was silent for {IDLE_SECONDS:.0f} s."
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})."
    if isinstance(error, http.client.HTTPException):
        return f"the server's answer is no proper HTTP ({type(error).__name__})."
    return f"{getattr(error, 'strerror', None) or error}."


def _checked(url: str) -> SplitResult:
    """`url` in its parts. Raises FetchError where it is nothing to fetch."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise FetchError("This is no URL that could be read.") from None
    if any(char.isspace() or not char.isprintable() for char in url):
        raise FetchError("The URL holds blanks or control characters.")
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        raise FetchError(f"Only http and https URLs are fetched, not {parts.scheme or 'this'!r}.")
    if parts.username is not None or parts.password is not None:
        raise FetchError(
            f"{redact_url(url)}: a URL with a user name or password is not fetched; it would be stored readably."
        )
    return parts


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        raise FetchError(f"{redact_url(url)}: redirects to what is no URL.") from None


def _get(connection: http.client.HTTPConnection, url: SplitResult) -> http.client.HTTPResponse:
    target = quote(url.path or "/", safe="/%:@!$&'()*+,;=~") + (
        f"?{quote(url.query, safe='/%:@!$&()*+,;=~?')}" if url.query else ""
    )
    # "identity": what is stored and hashed is what the file is, not how it travelled.
    connection.request("GET", target, headers={"Accept-Encoding": "identity", "User-Agent": "mms-fetch"})
    return connection.getresponse()


def _refuse_status(response: http.client.HTTPResponse, url: str) -> None:
    if response.status != 200:
        reason = "".join(letter for letter in response.reason[:80] if letter.isprintable())
        raise FetchError(f"{redact_url(url)}: the server answered {response.status} {reason}.")


def _refuse_size(size: int, url: str, policy: Policy) -> None:
    if size > policy.max_bytes:
        raise FetchError(f"{redact_url(url)}: larger than the limit of {policy.max_bytes} bytes (MMS_FETCH_MAX_BYTES).")


def _copy(response: http.client.HTTPResponse, file: BinaryIO, url: str, policy: Policy) -> tuple[str, int]:
    """Write the body to `file`; its sha256 and size."""
    digest, size = hashlib.sha256(), 0
    while block := response.read1(CHUNK_BYTES):  # at most one read of the socket, so that a slow sender is noticed
        size += len(block)
        _refuse_size(size, url, policy)
        digest.update(block)
        file.write(block)
    if response.length:
        raise FetchError(f"{redact_url(url)}: the connection broke after {size} bytes; {response.length} are missing.")
    return digest.hexdigest(), size


@contextlib.contextmanager
def _cut_off(connection: http.client.HTTPConnection, deadline: float) -> Iterator[None]:
    """Ends the connection at the deadline, whatever is being read then: a drip of bytes keeps no build waiting."""
    timer = threading.Timer(max(deadline - time.monotonic(), 0), _shut, [connection.sock])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


# --- the guarded connection ---------------------------------------------------------------------------------------


def _connect(url: SplitResult, policy: Policy, deadline: float) -> http.client.HTTPConnection:
    """An open connection to the host of `url`. Raises FetchError where its addresses are not allowed, OSError else."""
    host, port = url.hostname or "", url.port or DEFAULT_PORTS[url.scheme]
    rule = is_allowed if policy.exempts(url) else is_public
    try:
        sock = open_socket(host, port, min(IDLE_SECONDS, max(deadline - time.monotonic(), 0.1)), rule=rule)
    except ForbiddenAddressError:
        raise FetchError(
            f"{host} lies in a private or reserved network, from which nothing is fetched (MMS_FETCH_ALLOW_PRIVATE)."
        ) from None
    if url.scheme == "http":
        connection = http.client.HTTPConnection(host, port)
    else:
        context = ssl.create_default_context(cafile=os.environ.get("REQUESTS_CA_BUNDLE") or None)
        connection = http.client.HTTPSConnection(host, port, context=context)
        sock = context.wrap_socket(sock, server_hostname=host)  # its time-out is for the whole handshake
    connection.sock = sock  # so that http.client resolves nothing again
    return connection
