"""Free ports, each reserved for one test process.

A port selected by the kernel is reserved only until its socket closes. Before a server binds it, another process or an
outgoing connection may take it. So these ports are below the kernel's range, and each is reserved with a file lock
until this process ends.
"""

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import IO

LOCKS = Path(tempfile.gettempdir(), f"mmd-ports-{os.getuid()}")
FIRST, LAST = 15000, 31999
_reserved: dict[int, IO[bytes]] = {}


def free_port() -> int:
    """Return a TCP port of the loopback interface that is free and reserved for this process."""
    LOCKS.mkdir(mode=0o700, exist_ok=True)
    candidates = random.sample(range(FIRST, _last() + 1), 1000)
    for port in candidates:
        if port not in _reserved and _reserve(port):
            return port
    raise RuntimeError(f"no free port among 1000 between {FIRST} and {LAST}")


def _last() -> int:
    """Return the last port below the kernel's range, or `LAST` if the range is unknown or starts too low."""
    try:
        lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        return LAST
    return min(LAST, lowest - 1) if lowest > FIRST + 2000 else LAST


def _reserve(port: int) -> bool:
    """Lock the file of `port`. Return True if this process acquired the lock and nothing listens on the port."""
    file = (LOCKS / str(port)).open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return False
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            file.close()
            return False
    _reserved[port] = file
    return True
