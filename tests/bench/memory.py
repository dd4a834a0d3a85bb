"""How much memory processes really use: PSS, which counts shared pages once."""

import os
from pathlib import Path


def pss(pid: int) -> int:
    """Bytes (PSS) of one process; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def descendants(pid: int) -> set[int]:
    """`pid` and every process below it."""
    parents: dict[int, list[int]] = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
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
    """Bytes (PSS) of `pid` and everything below it."""
    return sum(map(pss, descendants(pid)))


def pss_of_group(group: int) -> int:
    """Bytes (PSS) of every process of the process group, and of what they started in sessions of their own."""
    members = set()
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.getpgid(int(entry)) == group:
                members |= descendants(int(entry))
        except ProcessLookupError:
            continue
    return sum(map(pss, members))
