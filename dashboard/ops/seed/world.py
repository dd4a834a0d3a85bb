"""Shared state of the sample data: the random generator and the current time."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from uuid import UUID

DAYS = 42  # of history
OPENING, CLOSING = 7, 18  # working hours, in UTC


@dataclass
class World:
    """Source of random values and times. The same seed gives the same rows, with times relative to `now`."""

    random: Random
    now: datetime

    def ago(self, days: float = 0, **span: float) -> datetime:
        """Return the time `days` before now. `span`: further arguments of timedelta."""
        return self.now - timedelta(days=days, **span)

    def uuid(self) -> UUID:
        return UUID(int=self.random.getrandbits(128), version=4)

    def hexadecimal(self, digits: int) -> str:
        return f"{self.random.getrandbits(4 * digits):0{digits}x}"

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def later(self, at: datetime, shortest: float, longest: float) -> datetime:
        """Return a time between `shortest` and `longest` minutes after `at`."""
        return at + timedelta(minutes=self.random.uniform(shortest, longest))

    def work_times(self, count: int, newest: float) -> list[datetime]:
        """Return `count` times in working hours, oldest first, at most DAYS and at least `newest` days ago."""
        oldest = self.random.uniform(0.7, 0.97) * DAYS
        days = sorted((self.random.uniform(newest, oldest) for _ in range(count)), reverse=True)
        return sorted(self._in_hours(self.ago(day)) for day in days)

    def _in_hours(self, at: datetime) -> datetime:
        """Return a time in working hours near `at`, never after it."""
        if at.weekday() > 4:
            at -= timedelta(days=at.weekday() - 4)
        if not OPENING <= at.hour < CLOSING:
            past_midnight = at.hour < OPENING
            at = at.replace(hour=self.random.randrange(OPENING, CLOSING)) - timedelta(days=past_midnight)
        return at - timedelta(days=2 if at.weekday() == 6 else 0)
