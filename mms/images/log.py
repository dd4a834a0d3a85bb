"""The build log: timestamped lines on stdout, grouped by step."""

import contextlib
import time
from collections import deque
from collections.abc import Iterator

STEPS = ("check", "fetch", "requirements", "packages", "layers", "image")
TAIL_LINES = 20  # lines of the log in an error


class Log:
    """Writes the build log and remembers its last lines."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self.current_step = STEPS[0]
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)

    @property
    def seconds(self) -> float:
        """Return the time since the build started."""
        return time.monotonic() - self._started

    def write(self, text: str) -> None:
        """Write each line of `text` with a timestamp."""
        for line in text.splitlines():
            timestamped = f"{self.seconds:8.2f} s  {line}"
            self.tail.append(timestamped)
            with contextlib.suppress(OSError):  # full disk: the result reports it
                print(timestamped, flush=True)

    def detail(self, text: str) -> None:
        """Write `text` as a detail of the current step."""
        self.write(f"  {text}")

    @contextlib.contextmanager
    def step(self, step: str, description: str) -> Iterator[None]:
        """Log the start and the duration of a step. If the step fails, it remains the current step."""
        self.current_step = step
        title = f"Step {STEPS.index(step) + 1}/{len(STEPS)} {step}"
        before = self.seconds
        self.write(f"{title}: {description}")
        yield
        self.write(f"{title}: done in {self.seconds - before:.2f} s")
