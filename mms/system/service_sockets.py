"""Verification of a service's socket before a connection to it is opened. Standard library only.

The launcher (mms/engines/process/launch.py) creates the socket outside the sandbox and records its device, inode and
modification time (inode numbers are reused) as the text of a link next to it. A path is only connected to if it still
is that socket, not a link or another file.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

RECORD_SUFFIX = ".id"  # of the link whose text is the record


class ForeignSocketError(OSError):
    """The path isn't the socket that the engine created."""


@contextmanager
def verified(path: str) -> Iterator[str]:
    """Yield a path for connecting to the service's socket at `path`. Raises OSError, without connecting.

    On Linux, the result refers to the verified file, even if `path` is replaced in the meantime.
    """
    if not hasattr(os, "O_PATH"):
        _check(os.lstat(path), path)
        yield path
        return
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _check(os.fstat(descriptor), path)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _check(found: os.stat_result, path: str) -> None:
    """Raise ForeignSocketError unless `found` is the socket in the record.

    A service started by an earlier release has no record and created its socket itself.
    """
    if not stat.S_ISSOCK(found.st_mode):
        raise ForeignSocketError(f"{path} isn't a socket.")
    recorded = _read_record(path)
    if recorded is None:
        return
    if (found.st_dev, found.st_ino, found.st_mtime_ns) != recorded or found.st_uid != os.geteuid():
        raise ForeignSocketError(f"{path} isn't the socket that was created for the service.")


def _read_record(path: str) -> tuple[int, ...] | None:
    """Return the record of the socket at `path`; None if there is none."""
    try:
        return tuple(int(word) for word in os.readlink(f"{path}{RECORD_SUFFIX}").split())  # noqa: PTH115 - fast
    except FileNotFoundError:
        return None
    except (ValueError, OSError):
        raise ForeignSocketError(f"The record of {path} is damaged. Restart the site.") from None
