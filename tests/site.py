"""A complete site, started as a user starts it: `manage.py up` with its own data folder, on a free port."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from mms.system import die_with_parent
from tests.ports import free_port
from tests.support.clock import quiet_seconds

ROOT = Path(__file__).resolve().parent.parent
OURS = re.compile(
    r"^(DATA_DIR|PYTEST_.*|.*_URL|SECRET_KEY.*|ALLOWED_HOSTS|HOST|PORT|GATEWAY_P.*|SERVE|MMS_.*|SUPERVISOR_SOCKET|"
    r"OIDC_.*|TRUSTED_PROXIES)$"
)


def wait_until(true: Callable[[], Any], seconds: float, what: str, *, every: float = 0.1) -> Any:
    """Call `true` until it returns a true value. Raise AssertionError naming `what` after `seconds`.

    On a busy machine it waits longer.
    """
    started = time.monotonic()
    while not (answer := true()):
        assert quiet_seconds(time.monotonic() - started) < seconds, f"waited {seconds} s for {what}"
        time.sleep(every)
    return answer


class Site:
    """Installation with its data folder, its port, and its processes while it runs."""

    command_line: tuple[str, ...] = (sys.executable, "manage.py")
    command = "up"  # of manage.py, starts the site
    folder = ROOT  # working directory of commands

    def __init__(self, data: Path, **environment: str) -> None:
        self.data = data
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.gateway_port = free_port()
        self.gateway_url = f"http://127.0.0.1:{self.gateway_port}"
        kept = {name: value for name, value in os.environ.items() if not OURS.match(name)}
        self.environment = {
            **kept,
            "DATA_DIR": str(data),
            "PORT": str(self.port),
            "GATEWAY_PORT": str(self.gateway_port),
        }
        self.environment |= environment
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """Return the output of `manage.py up`."""
        return self.data.with_name(f"{self.data.name}.out")

    def start(self) -> "Site":
        """Start the site and wait until /healthz reports it as healthy."""
        # If the test process is killed, as pytest-xdist does with its workers, the site must end too.
        with_parent = die_with_parent.wrap()
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [*with_parent, *self.command_line, self.command],
                cwd=self.folder,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until(self.works, 90, f"a healthy site, see {self.data}/log; last: {self.health()}")
        return self

    def works(self) -> bool:
        assert self.process
        assert self.process.poll() is None, f"manage.py {self.command} ended: {self.log.read_text()}"
        return self.health()[0] == 200

    def health(self) -> tuple[int, dict[str, str]]:
        """Return the status of /healthz and the state of each part, or (0, {}) without an answer."""
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=5) as answer:
                return answer.status, json.load(answer)["parts"]
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)["parts"]
        except OSError:
            return 0, {}

    def stop(self, signum: int = signal.SIGINT) -> int:
        """Stop the site with SIGINT to the foreground process, as Ctrl-C does. Return its exit status."""
        assert self.process
        if self.process.poll() is None:
            self.process.send_signal(signum)
        return self.process.wait(60)

    def processes(self) -> list[psutil.Process]:
        """Return every process of this installation, identified by its environment."""
        return [process for process in psutil.process_iter() if self._owns(process)]

    def _owns(self, process: psutil.Process) -> bool:
        try:
            return str(self.data) in {process.environ().get("DATA_DIR"), *process.cmdline()} or any(
                word.startswith(f"{self.data}/") or f"unixsocket:{self.data}/" in word for word in process.cmdline()
            )
        except psutil.Error:
            return False

    def program(self, name: str) -> psutil.Process:
        """Return the process of a supervised program, e.g. `site:worker`."""
        return psutil.Process(int(self.supervisorctl("pid", name)))

    def supervisorctl(self, *words: str) -> str:
        config = self.data / "run" / "supervisord.conf"
        command = [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(config), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.strip()

    def manage(self, *words: str, stdin: str = "") -> str:
        """Run a command of manage.py and return its output. Raise CalledProcessError if it fails."""
        done = subprocess.run(
            [*self.command_line, *words],
            cwd=self.folder,
            env=self.environment,
            input=stdin,
            text=True,
            capture_output=True,
            timeout=300,
        )
        assert done.returncode == 0, f"manage.py {' '.join(words)}: {done.stdout}\n{done.stderr}"
        return done.stdout.strip()
