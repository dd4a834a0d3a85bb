"""The whole site, started as a user starts it: `manage.py up` in a folder of its own, on a free port."""

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

ROOT = Path(__file__).resolve().parent.parent
OURS = re.compile(
    r"^(DATA_DIR|PYTEST_.*|.*_URL|SECRET_KEY.*|ALLOWED_HOSTS|HOST|PORT|SERVE|MMS_.*|SUPERVISOR_SOCKET|"
    r"OIDC_.*|TRUSTED_PROXIES)$"
)


def wait_until(true: Callable[[], Any], seconds: float, what: str, *, every: float = 0.1) -> Any:
    """Call `true` until it answers something; AssertionError naming `what` after `seconds`."""
    until = time.monotonic() + seconds
    while not (answer := true()):
        assert time.monotonic() < until, f"waited {seconds} s for {what}"
        time.sleep(every)
    return answer


class Site:
    """One installation: its data folder, its port, and its processes while it runs."""

    command_line: tuple[str, ...] = (sys.executable, "manage.py")
    command = "up"  # that runs it
    folder = ROOT  # where commands are run

    def __init__(self, data: Path, **environment: str) -> None:
        self.data = data
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        kept = {name: value for name, value in os.environ.items() if not OURS.match(name)}
        self.environment = {**kept, "DATA_DIR": str(data), "PORT": str(self.port), **environment}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What `manage.py up` printed."""
        return self.data.with_name(f"{self.data.name}.out")

    def start(self) -> "Site":
        """Start and wait until /healthz says that everything works."""
        # A test process that is killed, as pytest-xdist does with its workers, must not leave a site behind.
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
        """Status of /healthz and what it says of each part; (0, {}) when nobody answers."""
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=5) as answer:
                return answer.status, json.load(answer)["parts"]
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)["parts"]
        except OSError:
            return 0, {}

    def stop(self, signum: int = signal.SIGINT) -> int:
        """End the site as Ctrl-C does, to the foreground process only; returns its exit status."""
        assert self.process
        if self.process.poll() is None:
            self.process.send_signal(signum)
        return self.process.wait(60)

    def processes(self) -> list[psutil.Process]:
        """Every process that runs for this installation, found by its environment."""
        return [process for process in psutil.process_iter() if self._owns(process)]

    def _owns(self, process: psutil.Process) -> bool:
        try:
            return str(self.data) in {process.environ().get("DATA_DIR"), *process.cmdline()} or any(
                word.startswith(f"{self.data}/") or f"unixsocket:{self.data}/" in word for word in process.cmdline()
            )
        except psutil.Error:
            return False

    def program(self, name: str) -> psutil.Process:
        """The process of a program of the site, as the supervisor knows it, e.g. `site:worker`."""
        return psutil.Process(int(self.supervisorctl("pid", name)))

    def supervisorctl(self, *words: str) -> str:
        config = self.data / "run" / "supervisord.conf"
        command = [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(config), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.strip()

    def manage(self, *words: str, stdin: str = "") -> str:
        """Run a command of manage.py; returns what it printed. Raises CalledProcessError."""
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
