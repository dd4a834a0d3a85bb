"""The file of a backup: a plain tar of regular files with short names, and last of all their checksums.

It is written and read here, header by header, not by tarfile's own machinery: links, folders, devices and extended
headers, which no backup has, are refused before they could do anything. `tar` lists and unpacks the file all the same.
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
# No part begins with a dot, so that no name leads out of a folder; the length is what one header holds.
NAME = re.compile(r"(?=.{1,100}$)[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
SMALL_BYTES = 16 * 1024**2
HEADER = 512  # bytes; contents are filled up to a multiple of it
BLOCK = 1024**2


class Damaged(Exception):
    """The archive is not what was written. The text says where that shows."""


class Writer:
    """Writes members to `file`, one after the other; nothing is complete without `finish`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sums: list[str] = []
        self.size = 0

    def add(self, name: str, source: BinaryIO, mode: int = 0o600) -> str:
        """Add what `source` holds now as a member; returns its sha256."""
        size = os.fstat(source.fileno()).st_size
        return self._add(name, _exactly(source, size), size, mode)

    def add_bytes(self, name: str, data: bytes) -> str:
        return self._add(name, iter([data]), len(data), 0o600)

    def _add(self, name: str, parts: Iterator[bytes], size: int, mode: int) -> str:
        member = tarfile.TarInfo(name)
        member.size, member.mode, member.mtime = size, mode, int(time.time())
        digest = sha256()
        self._write(member.tobuf(tarfile.GNU_FORMAT, "ascii", "strict"))
        for part in parts:
            digest.update(part)
            self._write(part)
        self._write(bytes(-size % HEADER))
        self._sums.append(f"{digest.hexdigest()}  {name}\n")
        return digest.hexdigest()

    def finish(self) -> None:
        self.add_bytes(SUMS, "".join(self._sums).encode())
        self._write(bytes(2 * HEADER))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self.size += len(data)


def _exactly(source: BinaryIO, size: int) -> Iterator[bytes]:
    """`size` bytes of `source`. A log that is begun anew while it is read is filled up with line ends."""
    while size:
        part = source.read(min(BLOCK, size)) or b"\n" * min(BLOCK, size)
        size -= len(part)
        yield part


class Reader:
    """Reads `file` from its beginning, once. Every call raises Damaged where the archive is not whole."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sums: dict[str, str] = {}

    def small(self, name: str) -> bytes:
        """The next member, which must be `name`."""
        member = self._next()
        if member.name != name or member.size > SMALL_BYTES:
            raise Damaged(f"Expected {name}, found {member.name}.")
        content = BytesIO()
        self._copy(member, content)
        return content.getvalue()

    def unpack(self, folder: Path) -> None:
        """Put all other members below `folder`, and check every member against the checksums at the end."""
        while (member := self._next()).name != SUMS:
            path = folder / member.name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with open(descriptor, "wb") as file:
                self._copy(member, file)
                os.fchmod(descriptor, member.mode & 0o644)
        found = dict(self._sums)
        sums = BytesIO()
        self._copy(member, sums)
        _compare(found, sums.getvalue())
        self._file.read(2 * HEADER)  # so that who sends this through a pipe can end well

    def _next(self) -> tarfile.TarInfo:
        try:
            member = tarfile.TarInfo.frombuf(self._file.read(HEADER), "ascii", "strict")
        except (tarfile.HeaderError, ValueError):
            after = list(self._sums)[-1] if self._sums else "its first byte"
            raise Damaged(f"It is cut off or damaged after {after}.") from None
        if member.type != tarfile.REGTYPE or not NAME.fullmatch(member.name) or member.size < 0:
            raise Damaged(f"It contains {member.name[:100]!r}, which doesn't belong in a backup.")
        if member.name in self._sums:
            raise Damaged(f"It has {member.name} twice.")
        return member

    def _copy(self, member: tarfile.TarInfo, target: BinaryIO) -> None:
        digest, left = sha256(), member.size
        while left:
            part = self._file.read(min(BLOCK, left))
            if not part:
                raise Damaged(f"It is cut off in {member.name}.")
            left -= len(part)
            digest.update(part)
            target.write(part)
        self._file.read(-member.size % HEADER)
        self._sums[member.name] = digest.hexdigest()


def _compare(found: dict[str, str], sums: bytes) -> None:
    lines = (line.split("  ", 1) for line in sums.decode("ascii", "replace").splitlines())
    written = {parts[1]: parts[0] for parts in lines if len(parts) == 2}
    if wrong := sorted(name for name in found.keys() | written.keys() if found.get(name) != written.get(name)):
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise Damaged(f"{wrong[0]}{more} differs from what was written.")
