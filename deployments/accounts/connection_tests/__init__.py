"""Connection tests: try a server, a registry or a cluster with what somebody has typed, and say in words what is wrong.

They use the same connections, rules and credentials as the real calls, and nothing of what they learn is kept.
"""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass
from urllib.parse import urlsplit

from deployments.client import errors
from deployments.client.addresses import LOOPBACK

log = logging.getLogger(__name__)
CALL = 5.0  # seconds for each call of a trial
SECONDS = 12.0  # for a whole trial
SLOW = 2.0  # seconds; slower than this is worth a word
_THREADS = ThreadPoolExecutor(4, thread_name_prefix="trial")


@dataclass(frozen=True)
class Trial:
    """What came of it: `says` what happened, `advice` what to do about it ("" for nothing)."""

    works: bool
    says: str
    advice: str = ""


def in_time(attempt: Callable[[], Trial]) -> Trial:
    """What `attempt` finds, within SECONDS: not even a name server that is silent holds the page any longer.

    It runs in a thread without the database.
    """
    try:
        return _THREADS.submit(attempt).result(SECONDS)
    except Late:
        return Trial(False, f"There was no answer within {SECONDS:.0f} s.", "Is this the right host? Try once more.")
    except Exception:
        log.exception("A connection test broke.")
        return Trial(False, "The test itself failed; the log of the site says more.")


def unreached(error: errors.MMSError, where: str) -> Trial:
    """Of a place that gave no answer. where: the field of the form that names it."""
    text = str(error)
    for words, advice in (
        ("is not called", "Use the address at which other machines of your network reach it."),
        ("name or service not known", f"The host's name is not known: look for a slip in “{where}”."),
        ("nodename nor servname", f"The host's name is not known: look for a slip in “{where}”."),
        ("no address associated", f"The host's name is not known: look for a slip in “{where}”."),
        ("connection refused", "Nobody listens there: is the port right, and does the program run?"),
        (
            "certificate",
            "Its certificate is not one that this site trusts: REQUESTS_CA_BUNDLE names further authorities.",
        ),
        ("wrong version number", "It does not speak TLS: should the address begin with http://?"),
        ("record layer", "It does not speak TLS: should the address begin with http://?"),
        ("took too long", "Is there a firewall in between, or is it overloaded?"),
        ("not complete", "It answers too slowly: is it overloaded?"),
    ):
        if words in text.lower():
            return Trial(False, text, advice)
    return Trial(False, text, f"Is “{where}” right, and does it run?")


def slowly(seconds: float) -> str:
    return f" It took {seconds:.1f} s, which is slow." if seconds > SLOW else ""


def openly(url: str) -> str:
    """A word about secrets on a network without encryption."""
    parts = urlsplit(url)
    open_network = parts.scheme == "http" and parts.hostname not in LOOPBACK
    return "Without https everybody on the way can read the secret that is sent there." if open_network else ""
