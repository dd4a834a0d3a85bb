"""When what is done: how often the server is asked, how long is waited after trouble, and where it stops."""

import random
from datetime import datetime, timedelta

GRACE = timedelta(seconds=3)  # a queued operation whose queue message was lost is taken up after this
LEASE = timedelta(seconds=90)  # a call to the server ends well before (exchange.DEADLINE); then its worker has died
AHEAD = timedelta(seconds=0.5)  # a tick takes what is due within the next half second
YOUNG = 60.0  # seconds; younger operations are asked about every second
SLOWEST = 15.0  # seconds between two questions about the same operation
GIVE_UP_SENDING = timedelta(hours=1)  # nothing could be sent for so long: failed
SETTLED = 60.0  # seconds of doubt, by which an effect shows if there was one: a server may act after it broke off
ASK_A_PERSON = 300.0  # seconds of looking in vain for what an operation may have made
MOST_ATTEMPTS = 5  # that a server answers with an error of its own
STOP_POLLING = timedelta(hours=24)  # accepted, and not over after so long: polling stops until a person resumes it
SHORTEST_PAUSE = 1.0  # seconds
LONGEST_PAUSE = 25.0  # seconds without a call to a server that is out of reach
LONGEST_RETRY_AFTER = 3600.0  # seconds; a server that asks for more gets asked again all the same
TURN = 10.0  # seconds after which a thread begins nothing more for its account: others have their turn


def poll_interval(age: float) -> timedelta:
    """Time until the next question about an operation accepted `age` seconds ago.

    Exactly one second in the first minute; then longer, up to 15 s, with jitter so that many do not fall together.
    """
    if age < YOUNG:
        return timedelta(seconds=1)
    jitter = random.uniform(0.9, 1.1)  # noqa: S311 - spreads load, guards nothing
    return timedelta(seconds=min(SLOWEST, age / YOUNG) * jitter)


def pause(trouble_since: datetime, now: datetime) -> timedelta:
    """How long to leave a server alone that has been out of reach since then: 1 s at first, 25 s at most."""
    return timedelta(seconds=min(LONGEST_PAUSE, max(SHORTEST_PAUSE, (now - trouble_since).total_seconds() / 4)))


def look_interval(age: float) -> timedelta:
    """Time until the next look for what an uncertain operation, sent `age` seconds ago, would have made."""
    return timedelta(seconds=min(60.0, max(2.0, age / 5)))


def seconds(span: timedelta) -> float:
    return span.total_seconds()
