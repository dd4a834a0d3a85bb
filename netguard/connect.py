"""Connections to hosts whose address is checked at connection time.

A name that resolves to another address the second time (DNS rebinding) or an unusual spelling of an address can't
bypass the check, because the checked address is the one that is connected to.
"""

import errno
import socket
from collections.abc import Callable, Sequence
from typing import Any

from netguard.addresses import is_allowed

MAX_ADDRESSES = 8  # tried per host

Rule = Callable[[str], bool]


class ForbiddenAddressError(OSError):
    """None of the host's addresses may be connected to. `strerror` is a sentence without its full stop."""

    def __init__(self, address: str) -> None:
        self.is_private = is_allowed(address)  # of a host that was only referred to
        message = (
            f"{address} is in a private network, where only hosts are called that were entered or that operators listed"
            if self.is_private
            else f"{address} is reserved for a machine's own services and is never called"
        )
        super().__init__(errno.EACCES, message)


def open_socket(
    host: str,
    port: int,
    timeout: float | None,
    *,
    rule: Rule = is_allowed,
    source_address: tuple[str, int] | None = None,
    socket_options: Sequence[Any] | None = None,
) -> socket.socket:
    """Return a socket connected to the first address of `host` that `rule` permits and that accepts.

    timeout: seconds for each address. Raises ForbiddenAddressError if `rule` rejects every address, socket.gaierror if
    the name can't be resolved, and OSError if no address accepts.
    """
    failure: OSError | None = None
    for family, kind, protocol, _, address in _resolve(host.strip("[]"), port)[:MAX_ADDRESSES]:
        if not rule(str(address[0])):
            failure = failure or ForbiddenAddressError(str(address[0]))
            continue
        sock = socket.socket(family, kind, protocol)
        try:
            for option in socket_options or ():
                sock.setsockopt(*option)
            sock.settimeout(timeout)
            if source_address:
                sock.bind(source_address)
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure or OSError(errno.EADDRNOTAVAIL, "it has no address")


def _resolve(host: str, port: int) -> list[Any]:
    try:
        return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except UnicodeError:  # a label of the name is empty or too long
        raise socket.gaierror(socket.EAI_NONAME, "no host name") from None


def find_forbidden(error: BaseException | None) -> ForbiddenAddressError | None:
    """Return the ForbiddenAddressError that caused `error`, for clients that wrap it, such as requests; else None."""
    while error:
        if isinstance(error, ForbiddenAddressError):
            return error
        error = error.__cause__ or error.__context__
    return None
