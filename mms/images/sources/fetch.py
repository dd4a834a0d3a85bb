"""Downloads from URLs of users: http and https only, limited in size and time, never from private networks.

netguard checks the address of each connection, also after redirects. Proxies aren't used because a proxy would choose
the address itself.
"""

import contextlib
import hashlib
import http.client
import os
import socket
import ssl
import threading
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from mms.system import disk
from netguard.addresses import is_allowed, is_public
from netguard.connect import ForbiddenAddressError, open_socket
from netguard.urls import has_credentials

CHUNK_BYTES = 1 << 18
MAX_REDIRECTS = 5
IDLE_SECONDS = 30.0  # maximum pause while a server responds
REDIRECT_STATUSES = {301, 302, 303, 307, 308}
UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # of characters in file names
JOINERS = "\u200c\u200d"  # invisible, but part of the spelling of some languages
DEFAULT_PORTS = {"http": 80, "https": 443}


class FetchError(Exception):
    """The download failed. The message is for people and contains no query string."""


@dataclass(frozen=True)
class Policy:
    """The limits of a download.

    URLs below `allow_below` may have private addresses, for instance "http://10.0.0.5:8000/files/": a site's uploads,
    but nothing else that the site serves to its own machine.
    """

    max_bytes: int
    allow_private: bool = False
    allow_below: tuple[str, ...] = ()
    seconds: float = 1500.0  # for one download, redirects included
    size_advice: str = "Make it smaller or raise MMS_FETCH_MAX_BYTES."  # what to do about a file that is too large

    def is_exempt(self, url: SplitResult) -> bool:
        """Return True if `url` may have a private address."""
        return self.allow_private or any(_is_below(urlsplit(base), url) for base in self.allow_below)


@dataclass(frozen=True)
class Fetched:
    """Facts about a downloaded file."""

    sha256: str
    size: int
    mime_type: str


def fetch(url: str, destination: Path, policy: Policy) -> Fetched:
    """Stream `url` to the new file `destination`. Raises FetchError, or OSError on a full disk, and leaves no file."""
    with destination.open("xb") as file:
        try:
            return _download(url, file, policy)
        except BaseException:
            destination.unlink()
            raise


def _download(url: str, file: BinaryIO, policy: Policy) -> Fetched:
    with _open_response(url, policy, time.monotonic() + policy.seconds) as response:
        _check_size(response.length or 0, url, policy)
        digest, size = _copy(response, file, url, policy)
        return Fetched(digest, size, response.headers.get_content_type())


def redact_url(url: str) -> str:
    """Return `url` for logs and errors: without user, query and fragment, which may contain secrets."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"


def base_name(url: str) -> str:
    """Return the decoded last part of the URL's path, with composed accents (NFC); "" if it can't be a file name."""
    name = unicodedata.normalize("NFC", unquote(urlsplit(url).path).rsplit("/", 1)[-1])
    return "" if name in {"", ".", ".."} or _is_unsafe(name) or len(name.encode()) > 255 else name


def _is_unsafe(name: str) -> bool:
    """Return True if the name has control characters, line separators, surrogates or direction marks."""
    return any(unicodedata.category(letter) in UNSAFE_CATEGORIES and letter not in JOINERS for letter in name)


def _is_below(base: SplitResult, url: SplitResult) -> bool:
    """Return True if `url` is below `base`, however a server or proxy interprets its path."""
    if origin(base) != origin(url) or not url.path.startswith(base.path):
        return False
    path = unquote(unquote(unquote(url.path)))
    has_dots = any(part.partition(";")[0] in {".", ".."} for part in path.split("/"))
    return not (has_dots or "\\" in path or "//" in path)


def origin(url: SplitResult) -> tuple[str, str, int | None]:
    """Return the origin of `url`: scheme, host and port."""
    return url.scheme, (url.hostname or "").lower(), url.port or DEFAULT_PORTS.get(url.scheme)


# --- requests and redirects ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def _open_response(url: str, policy: Policy, deadline: float) -> Iterator[http.client.HTTPResponse]:
    """Yield the response with status 200, after redirects. Failures while it is read also become FetchError."""
    for _ in range(MAX_REDIRECTS + 1):
        parts = _parse_url(url)
        with (
            _fetch_errors(parts, deadline),
            contextlib.closing(_connect(parts, policy, deadline)) as connection,
            _enforce_deadline(connection, deadline),
        ):
            response = _get(connection, parts)
            if response.status not in REDIRECT_STATUSES:
                _check_status(response, url)
                yield response
                if time.monotonic() >= deadline:  # a connection shut down at the deadline looks complete
                    raise TimeoutError
                return
            url = _join_url(url, response.headers.get("Location", ""))
    raise FetchError(
        f"Couldn't download {redact_url(url)}: it redirects more than {MAX_REDIRECTS} times. Use the final URL."
    )


@contextlib.contextmanager
def _fetch_errors(url: SplitResult, deadline: float) -> Iterator[None]:
    """Raise FetchError for errors of the network and the server."""
    failure = f"Couldn't download {redact_url(url.geturl())}"
    try:
        yield
    except (OSError, ValueError, http.client.HTTPException) as error:
        if disk.is_full(error):  # an error of this machine
            raise
        if time.monotonic() >= deadline:
            raise FetchError(
                f"{failure}: it took too long and was stopped. Check the server, then build again."
            ) from error
        raise FetchError(f"{failure}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Return the cause of a failed download, and what to do."""
    if isinstance(error, socket.gaierror):
        return "the host name is unknown. Check the URL."
    if isinstance(error, TimeoutError):
        return f"the server sent nothing for {IDLE_SECONDS:.0f} s. Check the server, then build again."
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message}). Set REQUESTS_CA_BUNDLE to a file with its CA."
    if isinstance(error, http.client.HTTPException):
        return f"the response is not valid HTTP ({type(error).__name__}). Check the URL."
    return f"{getattr(error, 'strerror', None) or error}. Check the URL and that the server is running."


def _parse_url(url: str) -> SplitResult:
    """Parse `url`. Raises FetchError if it can't be downloaded."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise FetchError("The URL is invalid. Correct it.") from None
    if any(char.isspace() or not char.isprintable() for char in url):
        raise FetchError("The URL contains spaces or control characters. Percent-encode them.")
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        raise FetchError(
            f"Only http and https URLs can be downloaded, not {parts.scheme or 'this'!r}. Correct the URL."
        )
    if has_credentials(url):
        reason = "contains a user name or password, which would be stored as plain text."
        raise FetchError(f"The URL {reason} Use a URL without them.")
    return parts


def _join_url(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        raise FetchError(
            f"Couldn't download {redact_url(url)}: it redirects to an invalid URL. Use the final URL."
        ) from None


def _get(connection: http.client.HTTPConnection, url: SplitResult) -> http.client.HTTPResponse:
    target = quote(url.path or "/", safe="/%:@!$&'()*+,;=~") + (
        f"?{quote(url.query, safe='/%:@!$&()*+,;=~?')}" if url.query else ""
    )
    # "identity": store and hash the file itself, not a compressed transfer of it.
    connection.request("GET", target, headers={"Accept-Encoding": "identity", "User-Agent": "mms-fetch"})
    return connection.getresponse()


def _check_status(response: http.client.HTTPResponse, url: str) -> None:
    if response.status != 200:
        reason = "".join(letter for letter in response.reason[:80] if letter.isprintable())
        failure = f"Couldn't download {redact_url(url)}: the server responded with {response.status} {reason}."
        raise FetchError(f"{failure} Check the URL and that the file exists.")


def _check_size(size: int, url: str, policy: Policy) -> None:
    if size > policy.max_bytes:
        failure = f"Couldn't download {redact_url(url)}: the file is larger than {policy.max_bytes} bytes."
        raise FetchError(f"{failure} {policy.size_advice}")


def _copy(response: http.client.HTTPResponse, file: BinaryIO, url: str, policy: Policy) -> tuple[str, int]:
    """Write the body to `file` and return its SHA-256 and size."""
    digest, size = hashlib.sha256(), 0
    while block := response.read1(CHUNK_BYTES):  # one read of the socket at most, to notice slow senders
        size += len(block)
        _check_size(size, url, policy)
        digest.update(block)
        file.write(block)
    if response.length:
        reason = f"the connection closed after {size} bytes with {response.length} missing."
        raise FetchError(f"Couldn't download {redact_url(url)}: {reason} Build again.")
    return digest.hexdigest(), size


@contextlib.contextmanager
def _enforce_deadline(connection: http.client.HTTPConnection, deadline: float) -> Iterator[None]:
    """Shut the connection down at the deadline, also during a read: slow senders must not delay a build."""
    timer = threading.Timer(max(deadline - time.monotonic(), 0), _shut_down, [connection.sock])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _shut_down(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


# --- the guarded connection ---------------------------------------------------------------------------------------


def _connect(url: SplitResult, policy: Policy, deadline: float) -> http.client.HTTPConnection:
    """Return an open connection to the host of `url`. Raises FetchError if its address is forbidden, or OSError."""
    host, port = url.hostname or "", url.port or DEFAULT_PORTS[url.scheme]
    rule = is_allowed if policy.is_exempt(url) else is_public
    try:
        sock = open_socket(host, port, min(IDLE_SECONDS, max(deadline - time.monotonic(), 0.1)), rule=rule)
    except ForbiddenAddressError:
        failure = f"Couldn't download from {host}: it is in a private or reserved network."
        raise FetchError(f"{failure} Use a public address or set MMS_FETCH_ALLOW_PRIVATE.") from None
    if url.scheme == "http":
        connection = http.client.HTTPConnection(host, port)
    else:
        context = ssl.create_default_context(cafile=os.environ.get("REQUESTS_CA_BUNDLE") or None)
        connection = http.client.HTTPSConnection(host, port, context=context)
        sock = context.wrap_socket(sock, server_hostname=host)  # its timeout applies to the entire handshake
    connection.sock = sock  # prevents http.client from resolving the host again
    return connection
