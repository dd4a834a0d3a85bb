"""Time limits that hold on a quiet machine, for tests that run on a busy one."""

import os


def stretch() -> float:
    """Return the factor by which things may take longer because a test has only a part of a core; at least 1.

    The factor depends on the workers of this run and on the load of the last minute, which includes other processes.
    """
    cores = len(os.sched_getaffinity(0))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    return max(1.0, workers / cores, os.getloadavg()[0] / cores)


def quiet_seconds(elapsed: float) -> float:
    """Return how long something would have taken on a quiet machine that took `elapsed` seconds on this one."""
    return elapsed / stretch()
