"""Archives of strangers, unpacked so that nothing but new plain files and folders below one folder can come of it.

The members are walked here, one by one, because the filters of tarfile do not stop everything on every Python that
this runs on (a hard link to a deeper symbolic link gets out of 3.11.7). Links and devices are refused, modes are our
own, sizes are counted while writing, whatever the headers claim. When something is refused nothing stays behind.
"""

import bz2
import gzip
import lzma
import shutil
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

CHUNK_BYTES = 1 << 18
MAX_MEMBERS = 100_000  # files and folders, those included that only a path names
MAX_PATH_BYTES = 1024  # bytes of a member's path
MAX_DEPTH = 64  # folders within each other
# Bytes of a tar between two members: long names and attributes. tarfile reads them into memory, and up to 3.11.9
# with a regular expression whose time grows with the square of them (CVE-2024-6232): a second for this many.
MAX_HEADER_BYTES = 32 << 10
MAX_GLOBAL_ATTRIBUTES = 100  # attributes of a tar that hold for all members after them; copied for each
MAX_DIRECTORY_BYTES = 32 << 20  # bytes of a zip's table of contents, read into memory by zipfile
MAX_XZ_MEMORY_BYTES = 160 << 20  # bytes an xz stream may make us hold; xz -9 takes 65 MB

# What the readers of the standard library raise when they meet something that they did not expect.
READER_ERRORS = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    ValueError,
    RuntimeError,
    OSError,
)


class UnpackError(Exception):
    """The archive is not unpacked. The text names the member and the reason, for people."""


@dataclass(frozen=True)
class Member:
    """One file or folder of an archive, as its header has it."""

    name: str
    is_folder: bool
    executable: bool
    open: Callable[[], AbstractContextManager[IO[bytes]]]


def unpack(archive: Path, target: Path, max_bytes: int) -> int:
    """Unpack a zip or tar (plain, .gz, .bz2, .xz), told by its content, into the new folder `target`.

    Returns the bytes written. Raises UnpackError; then `target` does not exist.
    """
    target.mkdir(parents=True)
    try:
        with archive.open("rb") as file:
            return _write(_members(file), target, max_bytes)
    except READER_ERRORS as error:
        shutil.rmtree(target)
        if getattr(error, "errno", None):  # ours, not the archive's: no space left, name too long
            raise UnpackError(f"The archive could not be written: {error}") from error
        raise UnpackError(f"The archive is damaged or of a kind that is not read: {error}") from error
    except BaseException:
        shutil.rmtree(target)
        raise


def _write(members: Iterator[Member], target: Path, max_bytes: int) -> int:
    seen, written = _PathSet(), 0
    for number, member in enumerate(members, 1):
        if number > MAX_MEMBERS:
            raise _too_many()
        if not (parts := _parts(member.name)):
            continue
        seen.add(parts, member.is_folder)
        path = target.joinpath(*parts)
        if member.is_folder:
            path.mkdir(parents=True, exist_ok=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with member.open() as source, path.open("xb") as file:
            while block := source.read(CHUNK_BYTES):
                written += len(block)
                if written > max_bytes:
                    raise UnpackError(f"Unpacked, the archive is larger than {max_bytes} bytes (MMS_UNPACK_MAX_BYTES).")
                file.write(block)
        path.chmod(0o755 if member.executable else 0o644)
    return written


def _parts(name: str) -> list[str]:
    """The parts of a member's path; none for the top folder itself. Raises UnpackError where it leads elsewhere."""
    if name.startswith("/") or "\\" in name or name[1:2] == ":":
        raise UnpackError(f"{name[:200]!r} is an absolute path or one of another system.")
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise UnpackError(f"{name[:200]!r} leads out of the archive ('..').")
    if not name.isprintable() or len(name.encode(errors="surrogateescape")) > MAX_PATH_BYTES:
        raise UnpackError(f"{name[:200]!r} is no name for a file: control characters, or too long.")
    if len(parts) > MAX_DEPTH:
        raise UnpackError(f"{name[:200]!r} lies more than {MAX_DEPTH} folders deep.")
    return parts


class _PathSet:
    """Which paths there are, so that no member replaces another, here or where upper and lower case are the same."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}
        self._files: dict[str, str] = {}

    def add(self, parts: list[str], is_folder: bool) -> None:
        for end in range(1, len(parts)):
            self._add_one("/".join(parts[:end]), True)
        self._add_one("/".join(parts), is_folder)

    def _add_one(self, path: str, is_folder: bool) -> None:
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())
        there = self._files.get(key) or (self._folders if is_folder else {}).get(key, path if is_folder else "")
        if not is_folder:
            there = there or self._folders.get(key, "")
        if there and (there != path or not is_folder or key in self._files):
            raise UnpackError(f"{path[:200]!r} and {there[:200]!r} would be the same file.")
        (self._folders if is_folder else self._files)[key] = path
        if len(self._files) + len(self._folders) > MAX_MEMBERS:
            raise _too_many()


def _too_many() -> UnpackError:
    return UnpackError(f"The archive has more than {MAX_MEMBERS} members.")


def _members(file: BinaryIO) -> Iterator[Member]:
    head = file.read(6)
    file.seek(0)
    if head.startswith(b"\x1f\x8b"):
        return _tar_members(cast(IO[bytes], gzip.GzipFile(fileobj=file)))
    if head.startswith(b"BZh"):
        return _tar_members(cast(IO[bytes], bz2.BZ2File(file)))
    if head.startswith(b"\xfd7zXZ\x00"):
        return _tar_members(cast(IO[bytes], _Xz(file)))
    if zipfile.is_zipfile(file):
        return _zip_members(file)
    file.seek(0)
    return _tar_members(file)


# --- zip ----------------------------------------------------------------------------------------------------------


def _zip_members(file: BinaryIO) -> Iterator[Member]:
    # ZipFile reads as much as this very function tells it to, whatever the number of entries is said to be.
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    if end and end[5] > MAX_DIRECTORY_BYTES:
        raise UnpackError("The archive's table of contents is too large.")
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            yield _zip_member(archive, info)


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        # The others may ask for any amount of memory, and zipfile gives it to them.
        raise UnpackError(f"{info.filename[:200]!r} is compressed by another method than deflate, which is not read.")
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise UnpackError(f"{info.filename[:200]!r} is a link or a device; only files and folders are unpacked.")
    # orig_filename: what stands in the archive, before the standard library cuts it at a NUL or swaps separators.
    return Member(info.orig_filename, info.is_dir(), bool(mode & 0o100), lambda: archive.open(info))


# --- tar ----------------------------------------------------------------------------------------------------------


def _tar_members(raw: IO[bytes]) -> Iterator[Member]:
    meter = _HeaderLimit(raw)
    with tarfile.open(fileobj=cast(Any, meter), mode="r|") as tar:
        while info := _next(tar, meter):
            yield _tar_member(tar, info, meter)


def _next(tar: tarfile.TarFile, meter: "_HeaderLimit") -> tarfile.TarInfo | None:
    meter.left = MAX_HEADER_BYTES
    info = tar.next()
    tar.members = []  # type: ignore[attr-defined]  # else every header stays in memory
    if len(tar.pax_headers) > MAX_GLOBAL_ATTRIBUTES:
        raise UnpackError(f"The archive has more than {MAX_GLOBAL_ATTRIBUTES} attributes that hold for all of it.")
    return info


def _tar_member(tar: tarfile.TarFile, info: tarfile.TarInfo, meter: "_HeaderLimit") -> Member:
    if not (info.isdir() or info.isreg()):
        raise UnpackError(f"{info.name[:200]!r} is a link or a device; only files and folders are unpacked.")
    meter.left = None

    def content() -> AbstractContextManager[IO[bytes]]:
        return cast(IO[bytes], tar.extractfile(info))

    return Member(info.name, info.isdir(), bool(info.mode & 0o100), content)


class _HeaderLimit:
    """Reads from `raw`, and stops where a header takes more than it may: `left` bytes, None in content."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw, self.left = raw, cast(int | None, MAX_HEADER_BYTES)

    def read(self, size: int) -> bytes:
        data = self._raw.read(size)
        if self.left is not None:
            self.left -= len(data)
            if self.left < 0:
                raise UnpackError("A header in the archive is too large.")
        return data


class _Xz:
    """An xz file to read from. LZMAFile has no limit for the memory that the file may ask for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._lzma = file, self._new()

    @staticmethod
    def _new() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_XZ_MEMORY_BYTES)

    def read(self, size: int) -> bytes:
        while True:
            if self._lzma.eof:
                rest = self._lzma.unused_data or self._file.read(CHUNK_BYTES)
                if not rest:
                    return b""
                self._lzma, data = self._new(), rest
            else:
                data = self._file.read(CHUNK_BYTES) if self._lzma.needs_input else b""
                if self._lzma.needs_input and not data:
                    raise EOFError("it ends too early")
            if block := self._lzma.decompress(data, size):
                return block
