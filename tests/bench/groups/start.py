"""Time of a second start, when nothing has to be installed, migrated or collected."""

import signal
import statistics
import subprocess
import time
from collections.abc import Iterator

import requests

from tests.bench.ours import Bench
from tests.bench.run import Run
from tests.bench.table import ROOT, Row


def with_few_rows(run: Run) -> Iterator[Row]:
    """Start a site that was only set up."""
    yield _row("second `make up` until a page answers", run)


def with_many_rows(run: Run) -> Iterator[Row]:
    """Start a site with a great number of models and a service."""
    run.bench.service()
    run.bench.seed_models(run.sizes.many_models)
    yield _row(f"... with {run.sizes.many_models:,} models and a service", run)


def _row(what: str, run: Run) -> Row:
    times = [_start(run.bench) for _ in range(run.sizes.rounds)]
    seconds = statistics.median(times)
    return Row(what, f"{seconds:.1f} s, longest {max(times):.1f} s", "≤ 3 s", seconds <= 3)


def _start(bench: Bench) -> float:
    """Stop the site, start it, and return the seconds until a page answers. The site is healthy afterwards."""
    bench.site.stop(signal.SIGTERM)  # make forwards SIGTERM; Ctrl-C in a terminal reaches both processes
    started = time.perf_counter()
    process = subprocess.Popen(
        ["make", "--old-file=.venv/.base", "up"],  # never installs anything
        cwd=ROOT,
        env=bench.site.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    bench.site.process = process
    while not _page_answers(bench):
        assert process.poll() is None, "make up ended"
        time.sleep(0.02)
    seconds = time.perf_counter() - started
    bench.wait_for_health()
    return seconds


def _page_answers(bench: Bench) -> bool:
    try:
        return bool(requests.get(f"{bench.site.url}/sign-in/", timeout=5).ok)
    except requests.ConnectionError:
        return False
