"""Limits on the resources of a service, and the guard that stops services above them.

The kernel enforces limits per process (see `launch.py` and `confine.py`). The memory of all processes of a service
together and of its temporary files can only be limited by control groups, which the service manager rarely delegates
to a site. Therefore, a thread of the worker measures it, and kills a service above its limits.
"""

import json
import logging
import os
import re
import signal
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from mms.engines.process.logs import Logs
from mms.engines.process.program import Program

logger = logging.getLogger(__name__)

CHECK_SECONDS = 0.5
SANDBOX_TASKS = 8  # at most; the kernel doesn't count those of bubblewrap and `confine.py`
MAX_TEMPORARY_FILES = 200_000  # each takes about 1 kB of the kernel's memory, which isn't part of a file's size
# Libraries reserve address space that they never use: mimalloc, part of pyarrow, reserves 1 GiB. The kernel's limit per
# process is therefore above the guard's, which counts only memory in use.
DATA_FACTOR = 1.5
STATUS_LINE = re.compile(rb"^(RssAnon|RssShmem|VmSwap|Threads):\s+(\d+)", re.MULTILINE)
ROLLUP_LINE = re.compile(rb"^(?:Pss_Anon|Pss_Shmem|SwapPss):\s+(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Resources:
    """What one service may use."""

    memory: int = 2 * 1024**3  # bytes of all its processes and temporary files; 0 sets no limit
    tasks: int = 256  # processes and threads
    temporary: int = 1024**3  # bytes in /tmp
    cpus: int = 0  # 0: all but one

    def __str__(self) -> str:
        """Describe the limits in a sentence."""
        memory = f"{size(self.memory)} of memory, " if self.memory else ""
        files = f"{size(self.temporary)} of temporary files"
        return f"Each service may use {memory}{files} and {self.tasks} processes and threads."

    def cpu_count(self, processes: int) -> int:
        """Return how many CPUs a service with this number of scoring processes may use."""
        return self.cpus or max(1, processes, (os.cpu_count() or 1) - 1)

    @property
    def data(self) -> int:
        """The limit on the data of each process in bytes, for RLIMIT_DATA."""
        return int(self.memory * DATA_FACTOR)


@dataclass(frozen=True)
class Usage:
    """What a service uses."""

    memory: int  # bytes; what processes share is counted for each
    tasks: int
    temporary: int = 0  # bytes in temporary folders
    files: int = 0  # in temporary folders


class Guard:
    """Measures the services with files in `run` and stops those above their limits."""

    def __init__(self, run: Path, logs: Logs, resources: Resources) -> None:
        self.run, self.logs, self.resources = run, logs, resources

    def start(self) -> None:
        """Check all services every CHECK_SECONDS in a thread, until the process ends."""
        threading.Thread(target=self._work, name="guard", daemon=True).start()

    def _work(self) -> None:
        while True:
            threading.Event().wait(CHECK_SECONDS)
            try:
                self.check()
            except Exception:
                logger.exception("Couldn't check the resources of services.")

    def check(self) -> None:
        """Check all services once."""
        for program in Program.configured(self.run):
            try:
                self._check_program(program)
            except Exception:  # continue with the others
                logger.exception("Couldn't check the resources of %s.", program.name)

    def _check_program(self, program: Program) -> None:
        supervisor, starts, root = read_starts(program)
        if not root or parent(root) != supervisor:
            return
        processes = descendants(root)
        usage = measure(processes)
        if self.excess(usage) and (shared := proportional_memory(processes)):
            usage = replace(usage, memory=min(usage.memory, max(shared, usage.temporary)))
        if reason := self.excess(usage):
            self._stop(program, processes, starts, reason)

    def excess(self, usage: Usage) -> str:
        """Return which limit `usage` exceeds, as a sentence; "" if none."""
        limits = self.resources
        if limits.memory and usage.memory > limits.memory:
            return f"It used more than {size(limits.memory)} of memory and was stopped."
        if usage.tasks > limits.tasks + SANDBOX_TASKS:
            return f"It used more than {limits.tasks} processes and threads and was stopped."
        if usage.files > MAX_TEMPORARY_FILES:
            return f"It created more than {MAX_TEMPORARY_FILES:,} temporary files and was stopped."
        return ""

    def _stop(self, program: Program, processes: list[int], starts: int, reason: str) -> None:
        program.stopped.write_text(json.dumps({"start": starts, "reason": reason}))
        with suppress(OSError), self.logs.path(program.service_id, program.number).open("a") as log:
            log.write(f"{reason}\n")
        logger.warning("Stopped revision %s of service %s: %s", program.number, program.service_id, reason)
        for pid in processes:  # the first is the sandbox; the others end with it
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def size(count: int) -> str:
    """Return a number of bytes as readable text, such as "2 GB"."""
    return f"{count / 1024**3:.3g} GB" if count >= 1024**3 else f"{count / 1024**2:.3g} MB"


def read_starts(program: Program) -> tuple[int, int, int]:
    """Return the supervisor's process ID, the number of starts under it, and the ID of the last started process."""
    try:
        supervisor, starts, process = (int(word) for word in program.starts.read_text().split())
    except (OSError, ValueError):
        return 0, 0, 0
    return supervisor, starts, process


def stop_reason(program: Program, start: int) -> str:
    """Return why the guard stopped the program after its start number `start`, as a sentence; "" if it didn't."""
    try:
        found = json.loads(program.stopped.read_text())
        return str(found["reason"]) if found["start"] == start else ""
    except (OSError, ValueError, KeyError):
        return ""


def parent(pid: int) -> int:
    """Return the parent of a process; 0 if the process has ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def descendants(pid: int) -> list[int]:
    """Return the process and all that it started."""
    found = [pid]
    for process in found:  # the loop appends to it
        with suppress(OSError):
            for thread in Path(f"/proc/{process}/task").iterdir():
                children = (thread / "children").read_bytes()
                found += [int(child) for child in children.split()]
    return found


def measure(processes: list[int]) -> Usage:
    """Return what `processes`, the last of which is in the sandbox, use together."""
    sums = dict.fromkeys((b"RssAnon", b"RssShmem", b"VmSwap", b"Threads"), 0)
    for pid in processes:
        with suppress(OSError):
            for name, value in STATUS_LINE.findall(Path(f"/proc/{pid}/status").read_bytes()):
                sums[name] += int(value)
    temporary, files = _temporary(processes[-1])
    private = (sums[b"RssAnon"] + sums[b"VmSwap"]) * 1024
    memory = private + max(sums[b"RssShmem"] * 1024, temporary)
    return Usage(memory, sums[b"Threads"], temporary, files)


def proportional_memory(processes: list[int]) -> int:
    """Return the bytes that `processes` use together, counting shared ones once; 0 if they can't be read.

    Slower than `measure`: the kernel looks at each page.
    """
    total = 0
    for pid in processes:
        with suppress(OSError):
            total += sum(map(int, ROLLUP_LINE.findall(Path(f"/proc/{pid}/smaps_rollup").read_bytes())))
    return total * 1024


def _temporary(pid: int) -> tuple[int, int]:
    """Return the bytes and the number of files in the sandbox's temporary folders; 0 without a sandbox."""
    used = files = 0
    for folder in ("tmp", "dev/shm"):
        with suppress(OSError):
            path = Path(f"/proc/{pid}/root", folder)
            if path.stat().st_dev == Path("/", folder).stat().st_dev:
                continue
            found = os.statvfs(path)
            used += (found.f_blocks - found.f_bfree) * found.f_frsize
            files += found.f_files - found.f_ffree
    return used, files
