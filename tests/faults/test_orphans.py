"""Kills of a supervisor while it restarts a program. Orphans would hold data and ports."""

import random
import signal
import subprocess
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from dashboard.ops.supervisor.programs import command
from tests.site import wait_until
from tests.twins import twins

PROGRAMS = 6
CONFIG = "[supervisord]\nnodaemon=true\nsilent=true\nlogfile={here}/log\npidfile={here}/pid\nchildlogdir={here}\n"
PROGRAM = "[program:p{number}]\ncommand=/bin/sleep 60\nstartsecs=0\nautorestart=true\n"


def children(supervisor: subprocess.Popen[bytes], here: Path) -> list[psutil.Process]:
    """Return the processes whose working directory is `here`, except the supervisor."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != supervisor.pid and process.cwd() == str(here):
                found.append(process)
    return found


def has_children(supervisor: subprocess.Popen[bytes], here: Path, count: int) -> bool:
    """Return True if `children` returns exactly `count` processes."""
    return len(children(supervisor, here)) == count


@pytest.mark.slow
@twins("rounds", 4, 20)
def test_no_child_outlives_a_supervisor_that_is_killed_while_it_starts_one(
    tmp_path: Path, record: dict[str, object], rounds: int
) -> None:
    chance, config = random.Random(3), tmp_path / "supervisord.conf"
    programs = "".join(PROGRAM.format(number=number) for number in range(PROGRAMS))
    config.write_text(CONFIG.format(here=tmp_path) + programs)
    for _ in range(rounds):
        supervisor = subprocess.Popen(command(config), cwd=tmp_path, stdout=subprocess.DEVNULL)
        wait_until(partial(has_children, supervisor, tmp_path, PROGRAMS), 20, "all programs", every=0.02)
        for child in children(supervisor, tmp_path):
            with suppress(psutil.Error):
                child.send_signal(signal.SIGKILL)  # supervisord restarts them immediately
        time.sleep(chance.uniform(0, 0.03))
        supervisor.kill()
        supervisor.wait(10)
        wait_until(partial(has_children, supervisor, tmp_path, 0), 5, "the end of its children")
    record["supervisors killed"] = rounds
