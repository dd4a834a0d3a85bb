"""SIGKILL for single processes of a running site, and for all of them."""

import os
import signal
from contextlib import suppress

import psutil

from tests.faults import wholeness
from tests.faults.mms_phases import World
from tests.site import Site, wait_until


def kill_worker(world: World) -> None:
    world.site.program("site:mms-worker").kill()


def kill_builder(world: World) -> None:
    found = [process for process in psutil.process_iter(["cmdline"]) if is_builder(world.site, process)]
    assert len(found) == 1, found
    found[0].kill()


def is_builder(site: Site, process: psutil.Process) -> bool:
    try:
        return "mms.images.build" in process.cmdline() and str(site.data) in process.environ().get("TMPDIR", "")
    except psutil.Error:
        return False


def kill_everything(world: World) -> None:
    """Kill the supervisor first, so that it restarts nothing, then all other processes of the site."""
    assert world.site.process
    pids = [*wholeness.scoring_processes(world.site), *(process.pid for process in world.site.processes())]
    world.site.process.kill()
    for pid in pids:
        _kill(pid)
    world.site.process.wait(10)
    wait_until(lambda: not world.site.processes(), 30, "the end of everything")
    wait_until(lambda: not wholeness.scoring_processes(world.site), 30, "the end of the services")


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
