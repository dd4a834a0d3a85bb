"""An installation that isn't running, for tests of its data."""

import json
import math
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil

from tests.site import ROOT, Site

PASSWORD = "four words of mine"
TOKEN = "the token of a server elsewhere"
KILLED_AT = """
    import os, signal
    from pkgutil import resolve_name
    from django.core.management import call_command

    left = {number}

    def killing(call):
        def killed(*args, **kwargs):
            global left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)
        return killed

    for path in {calls}:
        owner, _, name = path.rpartition(".")
        place = resolve_name(owner)
        setattr(place, name, killing(getattr(place, name)))
    call_command(*{words})
"""


def cpu_of(process: "subprocess.Popen[Any]") -> float:
    """Return the CPU time of the process, in seconds; infinity if it has exited."""
    try:
        times = psutil.Process(process.pid).cpu_times()
    except psutil.NoSuchProcess:
        return math.inf
    return float(times.user + times.system)


def cpu_of_children() -> float:
    """Return the CPU time of all processes that this one has waited for, in seconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def kill_after(process: "subprocess.Popen[Any]", cpu_seconds: float) -> None:
    """Kill the process once it has used this CPU time, unless it exits before.

    Unlike elapsed time, that is about the same however busy the machine is.
    """
    while process.poll() is None:
        if cpu_of(process) >= cpu_seconds:
            process.kill()
            return
        time.sleep(0.002)


class Installation(Site):
    """A data directory on which commands run as separate processes. Some are killed."""

    def ready(self) -> "Installation":
        """Create tables, an administrator, an account with a token, and an upload of 5 MB."""
        self.run(f"""
            from dashboard.ops.startup import prepare; prepare.prepare(serves_pages=False)
            from django.contrib.auth import get_user_model
            from deployments.models import HostingAccount
            get_user_model().objects.create_superuser("ann", password={PASSWORD!r})
            HostingAccount.objects.create(name="team", base_url="http://mms.example", token={TOKEN!r})
        """)
        self.upload(os.urandom(5_000_000))
        return self

    def upload(self, content: bytes) -> Path:
        digest = sha256(content).hexdigest()
        path = self.data / "files" / digest[:2] / digest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def attempt(self, *words: str, stdin: Any = None, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command of manage.py that may fail, but never with a traceback."""
        done = subprocess.run(
            [sys.executable, "manage.py", *words],
            cwd=ROOT,
            env=self.environment | environment,
            stdin=stdin,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def run(self, code: str, **environment: str) -> str:
        """Run Python code with the site's settings. Return its output."""
        done = self.start_code(code, **environment)
        output, errors = done.communicate(timeout=300)
        assert done.returncode == 0, errors
        return output.strip()

    def start_code(self, code: str, **environment: str) -> "subprocess.Popen[str]":
        whole = f"import django; django.setup()\n{textwrap.dedent(code)}"
        values = self.environment | {"DJANGO_SETTINGS_MODULE": "dashboard.settings"} | environment
        return subprocess.Popen(
            [sys.executable, "-c", whole],
            cwd=ROOT,
            env=values,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def killed(self, *words: str, after: float) -> bool:
        """Start a command of manage.py and kill it after `after` seconds of CPU time. Return False if it completes."""
        process = subprocess.Popen(
            [sys.executable, "manage.py", *words],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        kill_after(process, after)
        return process.wait(30) == -signal.SIGKILL

    def killed_at(self, number: int, calls: str, *words: str, **environment: str) -> bool:
        """Run a command of manage.py and kill it at one of its calls. Return False if it completed before.

        `calls` are the names of functions, separated by spaces. `number` counts their calls from 0.
        """
        process = self.start_code(KILLED_AT.format(number=number, calls=calls.split(), words=words), **environment)
        _, errors = process.communicate(timeout=120)
        assert process.returncode in {0, -signal.SIGKILL}, errors
        return process.returncode != 0

    def ask(self, expression: str, **environment: str) -> Any:
        """Evaluate an expression in the site. Its value must be representable in JSON."""
        code = f"""
            import json
            from collections import Counter
            from django.contrib.auth import get_user_model
            from django.db import connection
            from deployments.models import HostingAccount, Operation
            from mms.models import Token
            print(json.dumps({expression}))
        """
        return json.loads(self.run(code, **environment))

    def assert_complete(self) -> None:
        """Assert that everything created by `ready` exists and can be read."""
        signs_in = f"get_user_model().objects.get(username='ann').check_password({PASSWORD!r})"
        assert self.ask(f"[{signs_in}, HostingAccount.objects.get(name='team').token]") == [True, TOKEN]
        kept = list((self.data / "files").glob("*/*"))
        assert len(kept) == 1
        assert sha256(kept[0].read_bytes()).hexdigest() == kept[0].name

    def content(self) -> dict[str, bytes]:
        """Return the contents of all files that are data, by path."""
        transient = {"tmp", "run", "log", "static"}
        files = (path for path in sorted(self.data.rglob("*")) if path.is_file())
        names = {path.relative_to(self.data): path for path in files}
        return {str(name): path.read_bytes() for name, path in names.items() if name.parts[0] not in transient}
