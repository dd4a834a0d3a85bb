"""Figures of a module of fault tests: the faults and the recovery times, printed at its end."""

import statistics
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.figures import FIGURES


class Figures:
    def __init__(self) -> None:
        self.kills = self.requests = self.lost = self.repeated = 0
        self.seconds: dict[str, list[float]] = defaultdict(list)  # recovery time by killed process and phase

    def lines(self) -> Iterator[str]:
        yield (
            f"kills: {self.kills}, requests repeated: {self.requests}; "
            f"operations lost: {self.lost}, effects repeated: {self.repeated}"
        )
        for what, seconds in self.seconds.items():
            median, most = statistics.median(seconds), max(seconds)
            yield f"{what}: {len(seconds)} times, median {median:.1f} s, most {most:.1f} s"


@contextmanager
def printed(request: pytest.FixtureRequest) -> Iterator[Figures]:
    """Yield figures to fill in, and print them at the end of the run."""
    figures = Figures()
    yield figures
    FIGURES[request.module.__doc__.splitlines()[0]] = list(figures.lines())
