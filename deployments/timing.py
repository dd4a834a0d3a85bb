"""Intervals, timeouts and limits of the operation pipeline, in seconds."""

import random
from datetime import datetime, timedelta

QUEUE_GRACE_SECONDS = 1.0  # after which a queued operation is sent even if its queue message was lost
LEASE_SECONDS = 90.0  # longer than a call (http.DEADLINE_SECONDS), so it only expires if the worker was lost
TICK_AHEAD_SECONDS = 0.5  # a tick also starts what is due within this time
FAST_POLL_SECONDS = 60.0  # operations younger than this are polled every second
MAX_POLL_INTERVAL_SECONDS = 15.0  # between two polls of the same operation
MAX_FAILURE_INTERVAL_SECONDS = 30.0  # between two steps of an operation that keeps failing
MAX_UNSENT_SECONDS = 3600.0  # an operation that could not be sent for this long fails
EFFECT_GRACE_SECONDS = 60.0  # before resending: a server may still apply a request after the connection broke
MAX_PROBING_SECONDS = 300.0  # without a visible effect; then a user has to decide
MAX_ATTEMPTS = 5  # how often one operation is sent before it fails
MAX_POLLING_SECONDS = 86400.0  # after acceptance; polling then stops until a user resumes the operation
MIN_PAUSE_SECONDS = 1.0  # between two calls to an unreachable server
MAX_PAUSE_SECONDS = 25.0  # between two calls to an unreachable server
MIN_REFUSAL_PAUSE_SECONDS = 60.0  # before credentials that a server refused are tried again
MAX_REFUSAL_PAUSE_SECONDS = 3600.0
MAX_RETRY_AFTER_SECONDS = 3600.0  # cap on the Retry-After that a server may request
TURN_SECONDS = 10.0  # a thread starts no further call for its account after this, so that other accounts are called


def poll_seconds(age: float) -> float:
    """Return the time until the next poll of an operation accepted `age` seconds ago.

    One second during the first minute, then up to MAX_POLL_INTERVAL_SECONDS.
    """
    return 1.0 if age < FAST_POLL_SECONDS else min(MAX_POLL_INTERVAL_SECONDS, age / FAST_POLL_SECONDS)


def jittered(seconds: float) -> timedelta:
    """Return `seconds` with 10 % jitter if they are more than one, so that polls don't coincide."""
    jitter = random.uniform(0.9, 1.1)  # noqa: S311 - spreads load, guards nothing
    return timedelta(seconds=seconds * jitter if seconds > 1 else seconds)


def failure_interval(failures: int) -> float:
    """Return the time until the next step of an operation after `failures` failures in a row, 0 without any."""
    return min(MAX_FAILURE_INTERVAL_SECONDS, 2.0**failures) if failures else 0.0


def backoff(trouble_since: datetime, now: datetime) -> timedelta:
    """Return how long to pause calls to a server failing since `trouble_since`: 1 s at first, at most 25 s."""
    return timedelta(seconds=min(MAX_PAUSE_SECONDS, max(MIN_PAUSE_SECONDS, (now - trouble_since).total_seconds() / 4)))


def refusal_pause(refused_since: datetime, now: datetime) -> timedelta:
    """Return how long to wait until credentials refused since `refused_since` are tried again: it doubles each time."""
    elapsed = (now - refused_since).total_seconds()
    return timedelta(seconds=min(MAX_REFUSAL_PAUSE_SECONDS, max(MIN_REFUSAL_PAUSE_SECONDS, elapsed)))


def probe_interval(age: float) -> timedelta:
    """Return the time until the next probe for the effect of an uncertain operation sent `age` seconds ago."""
    return timedelta(seconds=min(60.0, max(2.0, age / 5)))
