"""When what is done: how often the server is asked, how long is waited after trouble, and where it stops."""

import random
from datetime import datetime, timedelta

QUEUE_GRACE_SECONDS = 3.0  # after which a queued operation is sent even if its queue message was lost
LEASE_SECONDS = 90.0  # more than a call takes (http.DEADLINE_SECONDS); when it is over, the worker has died
TICK_AHEAD_SECONDS = 0.5  # a tick also starts what is due within this time
FAST_POLL_SECONDS = 60.0  # seconds; younger operations are asked about every second
MAX_POLL_INTERVAL_SECONDS = 15.0  # seconds between two questions about the same operation
MAX_UNSENT_SECONDS = 3600.0  # an operation that could not be sent for this long fails
EFFECT_GRACE_SECONDS = (
    60.0  # seconds of doubt, by which an effect shows if there was one: a server may act after it broke off
)
MAX_PROBING_SECONDS = 300.0  # seconds of looking in vain for what an operation may have made
MAX_ATTEMPTS = 5  # that a server answers with an error of its own
MAX_POLLING_SECONDS = 86400.0  # after acceptance; then polling stops until a person resumes it
MIN_PAUSE_SECONDS = 1.0  # seconds
MAX_PAUSE_SECONDS = 25.0  # seconds without a call to a server that is out of reach
MAX_RETRY_AFTER_SECONDS = 3600.0  # seconds; a server that asks for more gets asked again all the same
TURN_SECONDS = 10.0  # seconds after which a thread begins nothing more for its account: others have their turn


def poll_interval(age: float) -> timedelta:
    """Time until the next question about an operation accepted `age` seconds ago.

    Exactly one second in the first minute; then longer, up to 15 s, with jitter so that many do not fall together.
    """
    if age < FAST_POLL_SECONDS:
        return timedelta(seconds=1)
    jitter = random.uniform(0.9, 1.1)  # noqa: S311 - spreads load, guards nothing
    return timedelta(seconds=min(MAX_POLL_INTERVAL_SECONDS, age / FAST_POLL_SECONDS) * jitter)


def backoff(trouble_since: datetime, now: datetime) -> timedelta:
    """How long to leave a server alone that has been out of reach since then: 1 s at first, 25 s at most."""
    return timedelta(seconds=min(MAX_PAUSE_SECONDS, max(MIN_PAUSE_SECONDS, (now - trouble_since).total_seconds() / 4)))


def probe_interval(age: float) -> timedelta:
    """Time until the next look for what an uncertain operation, sent `age` seconds ago, would have made."""
    return timedelta(seconds=min(60.0, max(2.0, age / 5)))
