"""Benchmarks: `make bench` for this project, `make bench-peers` to compare it with MLflow and BentoML in one run.

python -m tests.bench [--peers FOLDER] [--keep FILE]
"""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from mms.images.store.layout import Store
from tests.bench import measures, peers
from tests.bench.browser import ColdPage, chromium, cold_page
from tests.bench.load import Result
from tests.bench.ours import Bench
from tests.bench.table import Row, keep, show
from tests.ports import free_port
from tests.site import Site

SECONDS = 6.0  # duration of each load
SETTLING = 30.0  # seconds of background work of MLflow's server after its first response


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--peers", type=Path, help="compare with MLflow and BentoML, installed in this folder")
    arguments.add_argument("--keep", type=Path, help="write the figures to this file as JSON")
    options = arguments.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        for row in measure(Path(folder) / "data", options.peers):
            print(f"{row.what}: {row.seen}", file=sys.stderr, flush=True)
            rows.append(row)
    print(show("Measured in one run", rows))
    if options.keep:
        keep(options.keep, rows)


def measure(data: Path, peers_folder: Path | None) -> Iterator[Row]:
    """Measure every row of the table on a separate site."""
    site = Site(data).start()
    try:
        bench = Bench(site)
        yield from measures.idle_memory(bench)
        site.manage("demo")
        yield from _measure(bench, Theirs(peers_folder) if peers_folder else None)
        yield from measures.second_start(bench)
    finally:
        site.stop(signal.SIGTERM)


def _measure(bench: Bench, theirs: "Theirs | None") -> Iterator[Row]:
    """Measure each figure for this project and then immediately for the peer."""
    service = next(iter(bench.services().values()))
    digest = bench.api.get(f"{bench.api_url}/images/{service['imageId']}").json()["digest"]
    built = Store(bench.site.data / "mms").assemble(digest)
    assert built.site
    yield from measures.deploy(bench, built.app, built.site)
    yield from theirs.first_scores() if theirs else []
    direct = bench.score_directly(service["id"], clients=16, seconds=SECONDS)
    gateway = bench.score_through_gateway(service["id"], clients=16, seconds=SECONDS)
    scored = theirs.score() if theirs else None
    yield measures.against("scoring, 16 clients, runtime called directly", direct, scored, 5)
    yield measures.against("… through the gateway", gateway, scored, 2.5, p99_share=0.25)
    yield from measures.badges(bench)
    registered = bench.register_models(clients=8, seconds=SECONDS)
    also = theirs.register() if theirs else None
    yield measures.against("register a model over the API, 8 clients", registered, also, 5)
    yield from measures.list_page(bench)
    yield from measures.cold_row(measures.cold_list_page(bench), theirs.cold_page() if theirs else None)


class Theirs:
    """Figures of the peers. Each server runs only while it is measured."""

    def __init__(self, folder: Path) -> None:
        self.peers = peers.Peers(folder.resolve())
        self.peers.install()

    def score(self) -> Result:
        with self.peers.mlflow_serve(port := free_port()):
            peers.score_mlflow(port, clients=16, seconds=2)  # warm-up
            return peers.score_mlflow(port, clients=16, seconds=SECONDS)

    def register(self) -> Result:
        with self.peers.mlflow_server(port := free_port()):
            time.sleep(SETTLING)
            return peers.register_models(port, clients=8, seconds=SECONDS)

    def cold_page(self) -> ColdPage:
        """Measure MLflow's list of at least 1000 models, some of which were registered above."""
        with ExitStack() as stack:
            stack.enter_context(self.peers.mlflow_server(port := free_port()))
            missing = 1000 - peers.count_models(port)
            if missing > 0:
                peers.register_models(port, clients=8, seconds=120, at_most=missing)
            time.sleep(SETTLING)
            browser = stack.enter_context(chromium())
            return cold_page(browser, f"http://127.0.0.1:{port}/#/models", 'a[href*="/models/model-"]')

    def first_scores(self) -> list[Row]:
        rows = []
        with self.peers.mlflow_serve(free_port()) as running:
            rows.append(Row("MLflow: `models serve` → first answer", f"{running.seconds:.1f} s", ""))
        with self.peers.bentoml_serve(port := free_port()) as running:
            scored = peers.score_bentoml(port, clients=16, seconds=SECONDS)
            rows.append(Row("BentoML: `serve` → first answer", f"{running.seconds:.1f} s", ""))
            rows.append(
                Row("BentoML: scoring, 16 clients", f"{scored.per_second:.0f} per second, p99 {scored.p99:.0f} ms", "")
            )
        with self.peers.mlflow_server(free_port()) as running:
            rows.append(Row("MLflow: `server` → first answer", f"{running.seconds:.1f} s", ""))
            rows.append(Row("MLflow: memory of `server` (PSS)", f"{running.memory() / 1e6:.0f} MB", ""))
        return rows


if __name__ == "__main__":
    main()
