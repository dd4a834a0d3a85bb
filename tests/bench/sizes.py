"""Sizes and durations of a run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """Sizes of a full run."""

    seconds: float = 4.0  # duration of each load
    rounds: int = 3  # repetitions of figures that are compared with each other
    models: int = 10_000
    many_models: int = 100_000
    requests: int = 300  # of pages, one after another
    pending: tuple[tuple[int, float], ...] = ((300, 0), (3000, 600))  # operations and their age in seconds
    streams: int = 2000
    listeners: int = 200  # open list pages
    events: int = 20
    settling: float = 20.0  # seconds until the memory of an idle site is read


QUICK = Sizes(
    seconds=0.5,
    rounds=1,
    models=200,
    many_models=1000,
    requests=20,
    pending=((20, 0), (60, 600)),
    streams=60,
    listeners=20,
    events=4,
    settling=1.0,
)
