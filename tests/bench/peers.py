"""Benchmark of MLflow and BentoML with the same work, in a separate environment (`make bench-peers`)."""

import contextlib
import json
import os
import signal
import subprocess
import textwrap
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator
from pathlib import Path

from tests.bench import load
from tests.bench.memory import pss_of_group

REQUIREMENTS = Path(__file__).parents[2] / "requirements" / "peers.txt"
ROW = [5.1, 3.5, 1.4, 0.2]

# The same model for all: logistic regression on iris, saved as each peer's documentation describes.
SAVE = """
import sklearn.datasets, sklearn.linear_model, joblib, mlflow.sklearn
X, y = sklearn.datasets.load_iris(return_X_y=True)
model = sklearn.linear_model.LogisticRegression(max_iter=500).fit(X, y)
mlflow.sklearn.save_model(model, "mlflow-model", input_example=X[:1])
joblib.dump(model, "model.joblib")
"""
BENTO_SERVICE = """
import bentoml, joblib, numpy as np

@bentoml.service(workers=1)
class Iris:
    def __init__(self):
        self.model = joblib.load("model.joblib")

    @bentoml.api
    def score(self, rows: list[list[float]]) -> list[int]:
        return self.model.predict(np.array(rows)).tolist()
"""


class Peers:
    """Environment and files of the peers in `directory`, created once and reused."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bin = directory / "env" / "bin"

    def install(self) -> None:
        """Create the environment and train the model, which takes minutes the first time.

        Raise CalledProcessError if a step fails.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        done = self.directory / "done"
        if done.exists() and done.read_text() == REQUIREMENTS.read_text():
            return
        venv.create(self.directory / "env", with_pip=True)
        pip = [self.bin / "python", "-m", "pip", "install", "-q", "--require-hashes", "-r", REQUIREMENTS]
        subprocess.run([str(word) for word in pip], check=True, env=self.environment())
        subprocess.run([self.bin / "python", "-c", SAVE], check=True, cwd=self.directory, env=self.environment())
        (self.directory / "iris_service.py").write_text(textwrap.dedent(BENTO_SERVICE))
        done.write_text(REQUIREMENTS.read_text())

    def environment(self) -> dict[str, str]:
        """Return the environment without usage reports or PYTHONDONTWRITEBYTECODE, which slows every start."""
        keep = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return keep | {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "BENTOML_HOME": str(self.directory / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
        }

    @contextlib.contextmanager
    def running(self, *command: str, ready: str) -> Iterator["Running"]:
        """Run a peer's server in a new process group. Yield it when `ready` answers 200, and stop it at the end."""
        started = time.perf_counter()
        log = (self.directory / "server.log").open("w")
        process = subprocess.Popen(
            [str(self.bin / command[0]), *command[1:]],
            cwd=self.directory,
            env=self.environment(),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            wait_for(ready, process)
            yield Running(process.pid, time.perf_counter() - started)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def mlflow_server(self, port: int) -> contextlib.AbstractContextManager["Running"]:
        """Run MLflow's registry and pages on SQLite with the default number of workers."""
        store = f"sqlite:///{self.directory / 'mlflow.db'}"
        command = ("mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--backend-store-uri", store)
        return self.running(*command, ready=f"http://127.0.0.1:{port}/health")

    def mlflow_serve(self, port: int) -> contextlib.AbstractContextManager["Running"]:
        command = ("mlflow", "models", "serve", "-m", "mlflow-model", "--env-manager", "local")
        return self.running(*command, "--host", "127.0.0.1", "--port", str(port), ready=f"http://127.0.0.1:{port}/ping")

    def bentoml_serve(self, port: int) -> contextlib.AbstractContextManager["Running"]:
        command = ("bentoml", "serve", "iris_service:Iris", "--host", "127.0.0.1", "--port", str(port))
        return self.running(*command, ready=f"http://127.0.0.1:{port}/readyz")


class Running:
    """Server of a peer: its process group, and the seconds from start to the first successful response."""

    def __init__(self, group: int, seconds: float) -> None:
        self.group, self.seconds = group, seconds

    def memory(self) -> int:
        """Return the memory of the process group in bytes (PSS)."""
        return pss_of_group(self.group)


def wait_for(url: str, process: subprocess.Popen[bytes], seconds: float = 180) -> None:
    """Wait until `url` answers 200. Raise TimeoutError, or RuntimeError if the process has ended."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}. See server.log in its folder.")
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.05)
    raise TimeoutError(f"{url} didn't answer within {seconds} s.")


def register_models(port: int, *, clients: int, seconds: float, at_most: int = 1_000_000) -> load.Result:
    """Register models with new names at MLflow's REST API, limited by time or number."""
    url = f"http://127.0.0.1:{port}/api/2.0/mlflow/registered-models/create"
    stamp = time.time_ns()

    def make(number: int) -> bytes:
        return load.encode("POST", url, json.dumps({"name": f"model-{stamp}-{number}"}).encode())

    return load.run(url, make, clients=clients, seconds=seconds, at_most=at_most)


def count_models(port: int) -> int:
    """Return the number of models in MLflow, which lists at most 1000."""
    url = f"http://127.0.0.1:{port}/api/2.0/mlflow/registered-models/search?max_results=1000"
    with urllib.request.urlopen(url, timeout=60) as answer:
        return len(json.load(answer).get("registered_models", []))


def score_mlflow(port: int, *, clients: int, seconds: float) -> load.Result:
    url = f"http://127.0.0.1:{port}/invocations"
    message = load.encode("POST", url, json.dumps({"inputs": [ROW]}).encode())
    return load.run(url, lambda _: message, clients=clients, seconds=seconds)


def score_bentoml(port: int, *, clients: int, seconds: float) -> load.Result:
    url = f"http://127.0.0.1:{port}/score"
    message = load.encode("POST", url, json.dumps({"rows": [ROW]}).encode())
    return load.run(url, lambda _: message, clients=clients, seconds=seconds)
