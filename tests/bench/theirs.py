"""Figures of the peers, measured next to ours."""

import time
from contextlib import ExitStack
from pathlib import Path

from tests.bench import peers
from tests.bench.browser import ColdPage, chromium, cold_page
from tests.bench.load import Result
from tests.bench.table import Row
from tests.ports import free_port

SECONDS = 6.0  # duration of each load
SETTLING = 30.0  # seconds of background work of MLflow's server after its first response


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
