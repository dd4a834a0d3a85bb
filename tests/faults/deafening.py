"""Tasks that stall their worker: it stays connected and running but consumes nothing (celery#8030)."""

import gc
import os
from typing import Any

from celery import shared_task
from kombu.transport.redis import Channel

from dashboard.ops.supervisor import watchdog

SPEED_UP = "WATCHDOG_TIMES_FASTER"  # environment variable that only this module reads

_times = int(os.environ.get(SPEED_UP, "1"))
watchdog.STALLED_SECONDS /= _times
watchdog.UNRECOVERABLE_SECONDS /= _times
watchdog.CHECK_INTERVAL_SECONDS /= _times


def _request_nothing(*_: Any, **__: Any) -> None:
    """Replace the channel's request for the next message."""


@shared_task(name="tests.deafen")
def deafen() -> None:
    """Stall the present channels. Those of a new connection work."""
    for channel in [thing for thing in gc.get_objects() if isinstance(thing, Channel)]:
        setattr(channel, "_brpop_start", _request_nothing)  # noqa: B010 - mypy rejects an assignment to a method


@shared_task(name="tests.deafen_permanently")
def deafen_permanently() -> None:
    """Stall every present and future connection of this process."""
    setattr(Channel, "_brpop_start", _request_nothing)  # noqa: B010 - mypy rejects an assignment to a method


@shared_task(name="tests.answer")
def answer() -> None:
    """Do nothing."""
