"""Lists of the MMS API, and registering models."""

import time
from collections.abc import Iterator

from tests.bench.run import MB, Run, against_mlflow
from tests.bench.table import Row

CLIENTS = 8


def measure(run: Run) -> Iterator[Row]:
    """Read the whole list of models with several clients, and see what memory the web server uses afterwards."""
    bench = run.bench
    bench.seed_models(run.sizes.models)
    bench.list_models(clients=1, seconds=run.sizes.seconds)
    before = bench.program_memory("site:web")
    listed = bench.list_models(clients=CLIENTS, seconds=2 * run.sizes.seconds)
    time.sleep(run.sizes.settling / 4)
    grown = (bench.program_memory("site:web") - before) / MB
    what = f"all {run.sizes.models:,} models through the API, {CLIENTS} clients"
    failed = f"; {listed.failed} failed" if listed.failed else ""
    seen = f"median {listed.median / 1000:.2f} s, p95 {listed.p95 / 1000:.2f} s, n = {listed.requests}{failed}"
    yield Row(what, seen, "median ≤ 0.5 s", listed.median <= 500 and not listed.failed)
    yield Row("... growth of the web server's memory", f"{grown:+.0f} MB", "≤ 10 MB", grown <= 10)


def register(run: Run) -> Iterator[Row]:
    """Register models, next to MLflow if it is measured."""
    registered = run.bench.register_models(clients=CLIENTS, seconds=run.sizes.seconds)
    theirs = run.theirs.register() if run.theirs else None
    yield against_mlflow(f"register a model over the API, {CLIENTS} clients", registered, theirs, 5)
