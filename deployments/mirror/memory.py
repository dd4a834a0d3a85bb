"""Return of memory that a large list used to the operating system.

Python and glibc retain freed memory for later use. A worker that read a list of 100,000 models would otherwise occupy
that much until it is restarted.
"""

import ctypes
import gc
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

GROWTH_BYTES = 16 * 1024**2  # smaller amounts are left for later use
_STATM = Path("/proc/self/statm")  # proc(5): sizes in pages, the second is the resident one


@contextmanager
def given_back() -> Iterator[None]:
    """Return the memory used in this block to the operating system if it was a large amount. Linux only."""
    before = resident_bytes()
    try:
        yield
    finally:
        if resident_bytes() - before > GROWTH_BYTES:
            gc.collect()
            if trim := _trim():
                trim(0)


def resident_bytes() -> int:
    """Return the memory that this process occupies, 0 if that is unknown."""
    try:
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


@cache
def _trim() -> Any:
    """Return malloc_trim(3), which only glibc has, or None."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
