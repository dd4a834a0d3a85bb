"""The build log: one line at a time on stdout, with the time since the start and the step it belongs to."""

import contextlib
import time
from collections import deque
from collections.abc import Iterator

STEPS = ("check", "fetch", "requirements", "packages", "layers", "image")
TAIL_LINES = 20


class Log:
    def __init__(self) -> None:
        self._started = time.monotonic()
        self.current_step = STEPS[0]
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def say(self, text: str) -> None:
        """Write `text`, one log line per line of it."""
        for line in text.splitlines():
            stamped = f"{self.seconds:8.2f} s  {line}"
            self.tail.append(stamped)
            with contextlib.suppress(OSError):  # the disk is full: the build says so by its result
                print(stamped, flush=True)

    def detail(self, text: str) -> None:
        self.say(f"  {text}")

    @contextlib.contextmanager
    def step(self, step: str, what: str) -> Iterator[None]:
        """A step of the build: says when it begins and how long it took. When it fails it stays the current step."""
        self.current_step = step
        title = f"Step {STEPS.index(step) + 1}/{len(STEPS)} {step}"
        before = self.seconds
        self.say(f"{title}: {what}")
        yield
        self.say(f"{title}: done in {self.seconds - before:.2f} s")
