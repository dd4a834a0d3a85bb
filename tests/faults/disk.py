"""A small file system that a test can fill and empty. Mounting it requires root; otherwise the test is skipped."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


class Disk:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._fillers = [folder / "filler", folder / "last-filler"]

    @property
    def free(self) -> int:
        """Return the free space in bytes."""
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Fill the disk and leave this many bytes free, rounded down to pages. With 0, no page is left."""
        self.clear()
        with self._fillers[0].open("wb") as file, suppress(OSError):  # other processes write at the same time
            if self.free > leave:
                os.posix_fallocate(file.fileno(), 0, self.free - leave)
        if not leave:
            self._take_the_rest()

    def _take_the_rest(self) -> None:
        with self._fillers[1].open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass

    def clear(self) -> None:
        for filler in self._fillers:
            filler.unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Disk]:
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"A FULL DISK IS NOT TESTED: no file system can be mounted here ({done.stderr.strip()})")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()
