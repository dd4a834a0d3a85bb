"""Guarded connections for requests and urllib3.

urllib3 has no public hook for choosing the address of a connection, so this module overrides `_new_conn`, reads
`_dns_host`, and sets `pool_classes_by_scheme`. No other module does. tests/unit/netguard/test_http.py fails if a
version of urllib3 changes them.
"""

import http.client
import socket
from collections.abc import Callable
from typing import Any, ClassVar

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from netguard.addresses import is_allowed
from netguard.connect import Rule, open_socket

RuleFor = Callable[[str, int], Rule]

MAX_INFORMATIONAL = 20  # before one response


class FinalResponse(http.client.HTTPResponse):
    """Response that skips informational ones (100, 102, 103), as RFC 9110 section 15.2 requires of clients.

    http.client only skips 100. 101 is final: no request asks to switch protocols.
    """

    def begin(self) -> None:
        """Read status and headers of the final response. Raises HTTPException after too many informational ones."""
        for _ in range(1 + MAX_INFORMATIONAL):
            super().begin()
            if not 100 <= self.status < 200 or self.status == http.client.SWITCHING_PROTOCOLS:
                return
            self.headers = None  # type: ignore[assignment] # begin() then reads the next response
        raise http.client.HTTPException(f"more than {MAX_INFORMATIONAL} informational responses")


def any_allowed(*_: object) -> Rule:
    """Return the rule of hosts that users entered."""
    return is_allowed


class Guarded:
    """Mixin for urllib3's connections: connects only to addresses that the rule of their host permits.

    Behind a proxy this is the proxy's address. The proxy chooses the address of the server itself.
    """

    rule_for: RuleFor = staticmethod(any_allowed)

    response_class: Any = FinalResponse
    host: str
    port: int
    timeout: Any
    source_address: tuple[str, int] | None
    socket_options: Any

    def _new_conn(self) -> socket.socket:
        """Return a connected socket. Raises the same exceptions as urllib3's own method."""
        connection: Any = self
        try:
            host = connection._dns_host
            return open_socket(
                host,
                self.port,
                self.timeout,
                rule=is_allowed if connection.proxy else self.rule_for(host, self.port),
                source_address=self.source_address,
                socket_options=self.socket_options,
            )
        except socket.gaierror as error:
            raise NameResolutionError(self.host, connection, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, "It took too long to connect.") from error
        except OSError as error:
            raise NewConnectionError(connection, f"No connection: {error}") from error


class GuardedConnection(Guarded, HTTPConnection):
    """An HTTP connection to an allowed address."""


class GuardedTLSConnection(Guarded, HTTPSConnection):
    """An HTTPS connection to an allowed address."""


class GuardedPool(HTTPConnectionPool):
    """A pool of guarded HTTP connections."""

    ConnectionCls = GuardedConnection


class GuardedTLSPool(HTTPSConnectionPool):
    """A pool of guarded HTTPS connections."""

    ConnectionCls = GuardedTLSConnection


class GuardedAdapter(HTTPAdapter):
    """A transport adapter for requests whose connections are guarded, with and without a proxy.

    rule_for: returns the rule for a host and port; by default, any allowed address.
    """

    pool_classes: ClassVar[dict[str, type[HTTPConnectionPool]]] = {"http": GuardedPool, "https": GuardedTLSPool}

    def __init__(self, *args: Any, rule_for: RuleFor | None = None, **more: Any) -> None:
        self._pools: dict[str, type[HTTPConnectionPool]] = dict(self.pool_classes)
        if rule_for is not None:
            self._pools = {scheme: _with_rule(pool, rule_for) for scheme, pool in self._pools.items()}
        super().__init__(*args, **more)

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        """Create the pool manager with guarded pools."""
        super().init_poolmanager(*args, **more)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **more: Any) -> Any:
        """Return the manager for `proxy`, with guarded pools."""
        manager = super().proxy_manager_for(proxy, **more)
        manager.pool_classes_by_scheme = self._pools
        return manager


def _with_rule(pool: type[HTTPConnectionPool], rule_for: RuleFor) -> type[HTTPConnectionPool]:
    """Return the pool's class with a rule for its connections."""
    connection = type(pool.ConnectionCls.__name__, (pool.ConnectionCls,), {"rule_for": staticmethod(rule_for)})
    return type(pool.__name__, (pool,), {"ConnectionCls": connection})
