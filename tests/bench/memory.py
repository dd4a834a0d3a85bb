"""Memory use of processes as PSS, which counts shared pages once."""

import os
from pathlib import Path


def pss(pid: int) -> int:
    """Return the memory of one process in bytes (PSS), or 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def descendants(pid: int) -> set[int]:
    """Return `pid` and all its descendants."""
    parents: dict[int, list[int]] = {}
    for entry in (path.name for path in Path("/proc").iterdir() if path.name.isdigit()):
        try:
            after_name = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        parents.setdefault(int(after_name[1]), []).append(int(entry))
    found, waiting = set(), [pid]
    while waiting:
        found.add(current := waiting.pop())
        waiting += parents.get(current, [])
    return found


def pss_of_tree(pid: int) -> int:
    """Return the memory of `pid` and all its descendants in bytes (PSS)."""
    return sum(map(pss, descendants(pid)))


def pss_of_group(group: int) -> int:
    """Return the memory in bytes (PSS) of a process group and of processes it started in other sessions."""
    members = set()
    for entry in (path.name for path in Path("/proc").iterdir() if path.name.isdigit()):
        try:
            if os.getpgid(int(entry)) == group:
                members |= descendants(int(entry))
        except ProcessLookupError:
            continue
    return sum(map(pss, members))
