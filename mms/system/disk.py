"""Early writeback of large files, and detection of a full disk."""

import ctypes
import errno
import os
import sys
from pathlib import Path
from typing import BinaryIO

WRITEBACK_STEP_BYTES = 1 << 24
SYNC_FILE_RANGE_WRITE = 2
BOOT_ID_PATH = Path("/proc/sys/kernel/random/boot_id")
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def start_writeback(file: BinaryIO, size: int, added: int) -> None:
    """Start writing `file`, which grew by `added` to `size` bytes, to the disk, without waiting.

    Then the fsync at the end has little left to do.
    """
    if _libc and size // WRITEBACK_STEP_BYTES > (size - added) // WRITEBACK_STEP_BYTES:
        file.flush()
        _libc.sync_file_range(file.fileno(), ctypes.c_int64(0), ctypes.c_int64(0), SYNC_FILE_RANGE_WRITE)


def fsync(path: Path) -> None:
    """Wait until the entire file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def is_full(error: BaseException) -> bool:
    """Return True if `error` means that the disk or the user's quota is full."""
    return getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT}


def boot_id() -> str:
    """Return an id that changes with every start of the machine; "" if the system has none."""
    return BOOT_ID_PATH.read_text().strip() if BOOT_ID_PATH.exists() else ""
