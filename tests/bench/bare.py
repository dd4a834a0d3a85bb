"""The baseline: a plain Python process that imports scikit-learn from an image's files, loads the model and answers.

It is the minimum cost of a service in time and memory. The benchmark reports how much more a real service costs.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.memory import pss_of_tree
from tests.bench.ours import ROW
from tests.ports import free_port

PROGRAM = """
import http.server, json, sys
sys.path.insert(0, "")
import score
score.init()

class Answer(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = json.dumps(score.run(**body)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *words):
        pass

http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""


@contextmanager
def running(app: Path, site_packages: Path) -> Iterator["Bare"]:
    """Start the process in the folder `app` and wait for its first successful response."""
    port = free_port()
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(site_packages), "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(port)], cwd=app, env=environment)
    try:
        _answers(f"http://127.0.0.1:{port}/")
        yield Bare(time.perf_counter() - started, pss_of_tree(process.pid))
    finally:
        process.terminate()
        process.wait(10)


class Bare:
    """Baseline process: seconds to the first successful response, and memory in bytes (PSS) after it."""

    def __init__(self, seconds: float, memory: int) -> None:
        self.seconds, self.memory = seconds, memory


def _answers(url: str) -> None:
    request = urllib.request.Request(url, json.dumps(ROW).encode(), {"Content-Type": "application/json"})
    until = time.perf_counter() + 60
    while time.perf_counter() < until:
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(request, timeout=30):
            return
        time.sleep(0.01)
    raise TimeoutError("The bare process didn't answer within 60 s.")
