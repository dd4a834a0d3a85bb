"""Tasks that make the worker which runs them deaf: connected and alive, and consuming nothing, as after celery#8030."""

import gc
import os
from typing import Any

from celery import shared_task
from kombu.transport.redis import Channel

from dashboard.ops.supervisor import watchdog

SOONER = "WATCHDOG_TIMES_FASTER"  # a variable that only this module reads

_times = int(os.environ.get(SOONER, "1"))
watchdog.DEAF /= _times
watchdog.HOPELESS /= _times
watchdog.LOOK /= _times


def _asks_for_nothing(*_: Any, **__: Any) -> None:
    """In place of the channel's question for the next message."""


@shared_task(name="tests.deafen")
def deafen() -> None:
    """The present channels ask no more; those of a new connection do."""
    for channel in [thing for thing in gc.get_objects() if isinstance(thing, Channel)]:
        channel._brpop_start = _asks_for_nothing


@shared_task(name="tests.deafen_for_good")
def deafen_for_good() -> None:
    """No connection of this process ever asks again."""
    Channel._brpop_start = _asks_for_nothing


@shared_task(name="tests.answer")
def answer() -> None:
    """Any task at all."""
