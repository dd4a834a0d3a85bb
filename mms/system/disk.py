"""Getting a large file onto the disk while it is written, so that there is little left to wait for at its end; and
whether the disk is full.
"""

import ctypes
import errno
import os
import sys
from pathlib import Path
from typing import BinaryIO

WRITEBACK_STEP_BYTES = 1 << 24  # bytes
SYNC_FILE_RANGE_WRITE = 2
BOOT_ID_PATH = Path("/proc/sys/kernel/random/boot_id")
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def start_writeback(file: BinaryIO, size: int, added: int) -> None:
    """Let the disk begin with the file, which has grown by `added` to `size` bytes. Waits for nothing."""
    if _libc and size // WRITEBACK_STEP_BYTES > (size - added) // WRITEBACK_STEP_BYTES:
        file.flush()
        _libc.sync_file_range(file.fileno(), ctypes.c_int64(0), ctypes.c_int64(0), SYNC_FILE_RANGE_WRITE)


def fsync(path: Path) -> None:
    """Return once the whole file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def is_full(error: BaseException) -> bool:
    """Whether the error says that there is no room left, on the disk or within its owner's quota."""
    return getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT}


def boot_id() -> str:
    """What differs after every start of the machine; "" where nobody says."""
    return BOOT_ID_PATH.read_text().strip() if BOOT_ID_PATH.exists() else ""
