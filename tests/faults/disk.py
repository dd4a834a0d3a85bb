"""A small file system that a test can fill and empty. Mounting it requires root; otherwise the test is skipped."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

import pytest


class Disk:
    """A mounted file system. Its files are opened relative to it, so they can't end up on the disk below it."""

    FILLERS = ("filler", "last-filler")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        assert os.fstat(self._descriptor).st_dev != folder.parent.stat().st_dev, f"nothing is mounted at {folder}"

    @property
    def free(self) -> int:
        """Return the free space in bytes."""
        found = os.statvfs(self._descriptor)
        return found.f_bavail * found.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Fill the disk and leave this many bytes free, rounded down to pages. With 0, no page is left."""
        self.clear()
        with self._create(self.FILLERS[0]) as file, suppress(OSError):  # other processes write at the same time
            if self.free > leave:
                os.posix_fallocate(file.fileno(), 0, self.free - leave)
        if not leave:
            self._take_the_rest()

    def _take_the_rest(self) -> None:
        with self._create(self.FILLERS[1]) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass

    def _create(self, name: str) -> FileIO:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        return FileIO(os.open(name, flags, 0o600, dir_fd=self._descriptor), "wb")

    def clear(self) -> None:
        """Remove what `fill` wrote."""
        for name in self.FILLERS:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._descriptor)

    def close(self) -> None:
        """Let go of the file system, so that it can be unmounted."""
        os.close(self._descriptor)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Disk]:
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"A FULL DISK IS NOT TESTED: no file system can be mounted here ({done.stderr.strip()})")
    disk = None
    try:
        disk = Disk(folder)
        yield disk
    finally:
        if disk:
            disk.close()
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()
