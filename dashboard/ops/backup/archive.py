"""The file format of a backup: a tar archive of regular files with short names, followed by their checksums.

Headers are written and read here instead of by tarfile, which would process members that no backup contains: links,
directories, devices and extended headers. They are rejected before they have any effect. `tar` can still list and
unpack the file.
"""

import os
import re
import tarfile
import time
from collections.abc import Iterator
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

SUMS = "SHA256SUMS"
# No component starts with a dot, so no name can point outside the directory. One header fits 100 characters.
NAME = re.compile(r"(?=.{1,100}$)[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
MAX_SMALL_BYTES = 16 * 1024**2
HEADER_BYTES = 512  # bytes; contents are padded to a multiple of this
BLOCK_BYTES = 1024**2


class DamagedArchiveError(Exception):
    """The archive is incomplete or damaged. The message names the position or the member."""


class Writer:
    """Writer of an archive. It is complete only after `finish`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sums: list[str] = []
        self.size = 0

    def add(self, name: str, source: BinaryIO, mode: int = 0o600) -> str:
        """Add the current contents of `source` as a member. Return their SHA-256."""
        size = os.fstat(source.fileno()).st_size
        return self._add(name, _exactly(source, size), size, mode)

    def add_bytes(self, name: str, data: bytes) -> str:
        """Add `data` as a member. Return its SHA-256."""
        return self._add(name, iter([data]), len(data), 0o600)

    def _add(self, name: str, parts: Iterator[bytes], size: int, mode: int) -> str:
        member = tarfile.TarInfo(name)
        member.size, member.mode, member.mtime = size, mode, int(time.time())
        digest = sha256()
        self._write(member.tobuf(tarfile.GNU_FORMAT, "ascii", "strict"))
        for part in parts:
            digest.update(part)
            self._write(part)
        self._write(bytes(-size % HEADER_BYTES))
        self._sums.append(f"{digest.hexdigest()}  {name}\n")
        return digest.hexdigest()

    def finish(self) -> None:
        """Write the checksums and the end of the archive."""
        self.add_bytes(SUMS, "".join(self._sums).encode())
        self._write(bytes(2 * HEADER_BYTES))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self.size += len(data)


def _exactly(source: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield exactly `size` bytes of `source`. A log truncated while it is read is padded with newlines."""
    while size:
        part = source.read(min(BLOCK_BYTES, size)) or b"\n" * min(BLOCK_BYTES, size)
        size -= len(part)
        yield part


class Reader:
    """Reader of an archive, from its beginning and only once.

    All methods raise DamagedArchiveError if the archive is incomplete or invalid.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sums: dict[str, str] = {}

    def read_small(self, name: str) -> bytes:
        """Return the contents of the next member, which must be `name`."""
        member = self._next()
        if member.name != name or member.size > MAX_SMALL_BYTES:
            raise DamagedArchiveError(f"It contains {member.name} instead of {name}.")
        content = BytesIO()
        self._copy(member, content)
        return content.getvalue()

    def unpack(self, target: Path) -> None:
        """Write all other members below `target` and verify the checksums of every member."""
        while (member := self._next()).name != SUMS:
            path = target / member.name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                self._copy(member, file)
                os.fchmod(descriptor, member.mode & 0o644)
        actual = dict(self._sums)
        sums = BytesIO()
        self._copy(member, sums)
        _compare(actual, sums.getvalue())
        self._file.read(2 * HEADER_BYTES)  # Read to the end, so that a program that writes to the pipe doesn't fail.

    def _next(self) -> tarfile.TarInfo:
        try:
            member = tarfile.TarInfo.frombuf(self._file.read(HEADER_BYTES), "ascii", "strict")
        except (tarfile.HeaderError, ValueError):
            where = f"after {list(self._sums)[-1]}" if self._sums else "at the beginning"
            raise DamagedArchiveError(f"It is cut off or damaged {where}.") from None
        if member.type != tarfile.REGTYPE or not NAME.fullmatch(member.name) or member.size < 0:
            raise DamagedArchiveError(f"It contains {member.name[:100]!r}, which doesn't belong in a backup.")
        if member.name in self._sums:
            raise DamagedArchiveError(f"It contains {member.name} twice.")
        return member

    def _copy(self, member: tarfile.TarInfo, target: BinaryIO) -> None:
        digest, left = sha256(), member.size
        while left:
            part = self._file.read(min(BLOCK_BYTES, left))
            if not part:
                raise DamagedArchiveError(f"It is cut off in {member.name}.")
            left -= len(part)
            digest.update(part)
            target.write(part)
        self._file.read(-member.size % HEADER_BYTES)
        self._sums[member.name] = digest.hexdigest()


def _compare(actual: dict[str, str], sums: bytes) -> None:
    lines = (line.split("  ", 1) for line in sums.decode("ascii", "replace").splitlines())
    expected = {parts[1]: parts[0] for parts in lines if len(parts) == 2}
    if wrong := sorted(name for name in actual.keys() | expected.keys() if actual.get(name) != expected.get(name)):
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise DamagedArchiveError(f"The contents don't match the checksums: {wrong[0]}{more}.")
