"""Connection tests: try a server, a registry or a cluster with unsaved settings and explain failures.

Tests use the same connections, address rules and credentials as real calls. Nothing is saved.
"""

import dataclasses
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass
from urllib.parse import urlsplit

from deployments.client import errors
from netguard.addresses import LOOPBACK_HOSTS
from netguard.redaction import Redactor

log = logging.getLogger(__name__)
CALL_SECONDS = 5.0  # per call
TEST_SECONDS = 12.0  # per test
SLOW_SECONDS = 2.0  # slower responses are mentioned
_THREADS = ThreadPoolExecutor(4, thread_name_prefix="connection-test")


@dataclass(frozen=True)
class ConnectionTestResult:
    """Result of a connection test: `message` says what happened, `advice` what to do ("" if nothing)."""

    succeeded: bool
    message: str
    advice: str = ""


def with_timeout(attempt: Callable[[], ConnectionTestResult], redactor: Redactor) -> ConnectionTestResult:
    """Return the result of `attempt`, or a failure after TEST_SECONDS.

    `attempt` runs in a thread, since name resolution can't be interrupted, and must not use the database. `redactor` is
    of the secrets that the tested server must not echo: those that are sent to it, and those of the account.
    """
    try:
        result = _THREADS.submit(attempt).result(TEST_SECONDS)
        return dataclasses.replace(result, message=redactor.text(result.message), advice=redactor.text(result.advice))
    except Late:
        return ConnectionTestResult(
            False, f"No response within {TEST_SECONDS:.0f} s.", "Check the host, then try again."
        )
    except Exception:
        log.exception("A connection test failed with an unexpected error.")
        return ConnectionTestResult(
            False, "The connection test failed with an unexpected error.", "Check the site's log for the reason."
        )


def unreachable(error: errors.MMSError, where: str) -> ConnectionTestResult:
    """Return the result if no response arrived. where: label of the form field with the address."""
    text = str(error)
    for words, advice in (
        ("is not called", "Use the address that other machines on your network use."),
        ("name or service not known", f"The host name is unknown. Check “{where}” for a typo."),
        ("nodename nor servname", f"The host name is unknown. Check “{where}” for a typo."),
        ("no address associated", f"The host name is unknown. Check “{where}” for a typo."),
        ("connection refused", "Nothing is listening there. Check the port, and that the program is running."),
        (
            "certificate",
            "This site doesn't trust its certificate. Add its authority with REQUESTS_CA_BUNDLE.",
        ),
        ("wrong version number", "It doesn't use TLS. Check whether the address should start with http://."),
        ("record layer", "It doesn't use TLS. Check whether the address should start with http://."),
        ("took too long", "Check for a firewall in between, and whether the server is overloaded."),
        ("not complete", "It responds too slowly. Check whether it's overloaded."),
    ):
        if words in text.lower():
            return ConnectionTestResult(False, text, advice)
    return ConnectionTestResult(False, text, f"Check “{where}”, and that the program is running.")


def slow_note(seconds: float) -> str:
    """Return a sentence about the duration if it exceeds SLOW_SECONDS, else ""."""
    return f" The response took {seconds:.1f} s, which is slow." if seconds > SLOW_SECONDS else ""


def insecure_note(url: str) -> str:
    """Return a warning if secrets would be sent without encryption, else ""."""
    parts = urlsplit(url)
    open_network = parts.scheme == "http" and parts.hostname not in LOOPBACK_HOSTS
    return "Without https, anyone on the network path can read the secret that is sent." if open_network else ""
