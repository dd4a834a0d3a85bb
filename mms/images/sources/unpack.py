"""Safe unpacking of untrusted archives: only new regular files and folders below one folder.

tarfile's own filters don't stop everything on all supported Python versions (a hard link to a deeper symbolic link
escapes on 3.11.7), so members are checked here one by one. Links and devices are rejected, modes are normalized, and
sizes are counted while writing instead of trusting headers. A rejected archive leaves no files behind.
"""

import bz2
import contextlib
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
MAX_MEMBERS = 100_000  # files and folders, including folders implied by a path
MAX_PATH_BYTES = 1024
MAX_DEPTH = 64  # nested folders
# Between two members of a tar: long names and attributes. tarfile reads them into memory and, up to 3.11.9, parses them
# in quadratic time (CVE-2024-6232): about a second for this size.
MAX_HEADER_BYTES = 32 << 10
MAX_GLOBAL_ATTRIBUTES = 100  # global attributes of a tar, which tarfile copies for each member
MAX_DIRECTORY_BYTES = 32 << 20  # of a zip's directory, which zipfile reads into memory
MAX_XZ_MEMORY_BYTES = 160 << 20  # for decompressing xz; xz -9 needs 65 MB

SINGLE_FILE_EXTENSIONS = frozenset({".gz", ".bz2", ".xz"})
READABLE_KINDS = (
    "a zip or tar file (.zip, .tar, .tar.gz, .tar.bz2, .tar.xz), or a single compressed file (.gz, .bz2, .xz)"
)
OTHER_KINDS = {  # by the first bytes of a file
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"Rar!": "a RAR archive",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard",
    b"\x04\x22\x4d\x18": "compressed with LZ4",
    b"\x1f\x9d": "compressed with compress (.Z)",
}

# Raised by the standard library for damaged archives.
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
    """The archive is rejected. The message is for people and names the member and the reason."""


@dataclass(frozen=True)
class Member:
    """One file or folder of an archive, as described by its header."""

    name: str
    is_folder: bool
    is_executable: bool
    open: Callable[[], AbstractContextManager[IO[bytes]]]


def unpack(archive: Path, target: Path, max_bytes: int, name: str = "") -> int:
    """Unpack a zip or tar (plain, .gz, .bz2, .xz; detected by its content) to the new folder `target`.

    A compressed file that isn't a tar, such as model.pkl.gz, is unpacked as model.pkl if `name`, its name in the URL,
    ends like that. Return the bytes written. Raises UnpackError after deleting `target`.
    """
    target.mkdir(parents=True)
    try:
        with archive.open("rb") as file:
            return _write(_members(file, name), target, max_bytes)
    except READER_ERRORS as error:
        shutil.rmtree(target)
        if getattr(error, "errno", None):  # the disk's fault: no space left, name too long
            raise UnpackError(
                f"Couldn't write the unpacked archive: {error}. Check the disk, then build again."
            ) from error
        raise UnpackError(_unreadable_message(archive, error)) from error
    except BaseException:
        shutil.rmtree(target)
        raise


def _unreadable_message(archive: Path, error: Exception) -> str:
    """Return the message for a file that can't be read as an archive, with the kinds that can."""
    with archive.open("rb") as file:
        head = file.read(8)
    if other := next((kind for magic, kind in OTHER_KINDS.items() if head.startswith(magic)), ""):
        return f"The file is {other}, which can't be unpacked. Use {READABLE_KINDS}."
    advice = f"Use {READABLE_KINDS}, or turn unpacking off if the file isn't an archive."
    return f"The archive is damaged or of an unsupported type: {error}. {advice}"


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
                    reason = f"The unpacked archive is larger than {max_bytes} bytes."
                    raise UnpackError(f"{reason} Make it smaller or raise MMS_UNPACK_MAX_BYTES.")
                file.write(block)
        path.chmod(0o755 if member.is_executable else 0o644)
    return written


def _parts(name: str) -> list[str]:
    """Return the parts of a member's path, empty for the top folder. Raises UnpackError if it is unsafe."""
    if name.startswith("/") or name[1:2] == ":":
        raise UnpackError(f"{name[:200]!r} is an absolute path. Use relative paths in the archive.")
    if "\\" in name:
        raise UnpackError(
            f"{name[:200]!r} has a backslash, and other members have slashes or the archive is a tar. "
            "Use slashes in all paths of the archive."
        )
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise UnpackError(f"{name[:200]!r} leads out of the archive by '..'. Use paths without '..' in the archive.")
    if not name.isprintable() or len(name.encode(errors="surrogateescape")) > MAX_PATH_BYTES:
        raise UnpackError(f"{name[:200]!r} has control characters or is too long. Rename it in the archive.")
    if len(parts) > MAX_DEPTH:
        raise UnpackError(f"{name[:200]!r} is nested more than {MAX_DEPTH} folders deep. Flatten the archive.")
    return parts


class _PathSet:
    """The paths seen so far, to prevent one member from replacing another, also on case-insensitive systems."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}
        self._files: dict[str, str] = {}

    def add(self, parts: list[str], is_folder: bool) -> None:
        """Add a member's path and its folders. Raises UnpackError on a conflict."""
        for end in range(1, len(parts)):
            self._add_one("/".join(parts[:end]), True)
        self._add_one("/".join(parts), is_folder)

    def _add_one(self, path: str, is_folder: bool) -> None:
        key = unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())
        existing = self._files.get(key) or (self._folders if is_folder else {}).get(key, path if is_folder else "")
        if not is_folder:
            existing = existing or self._folders.get(key, "")
        if existing and (existing != path or not is_folder or key in self._files):
            raise UnpackError(
                f"{path[:200]!r} and {existing[:200]!r} would be the same file. Rename one of them in the archive."
            )
        (self._folders if is_folder else self._files)[key] = path
        if len(self._files) + len(self._folders) > MAX_MEMBERS:
            raise _too_many()


def _too_many() -> UnpackError:
    return UnpackError(f"The archive has more than {MAX_MEMBERS} members. Pack fewer files.")


def _members(file: BinaryIO, name: str) -> Iterator[Member]:
    head = file.read(6)
    file.seek(0)
    if reader := next((make for magic, make in _COMPRESSIONS.items() if head.startswith(magic)), None):
        stem, dot, extension = name.rpartition(".")
        is_single = dot and stem and f".{extension.lower()}" in SINGLE_FILE_EXTENSIONS and not _is_tar(reader(file))
        file.seek(0)
        if is_single and not stem.lower().endswith(".tar"):
            return iter([_single_member(stem, reader(file))])
        return _tar_members(reader(file))
    if zipfile.is_zipfile(file):
        return _zip_members(file)
    file.seek(0)
    return _tar_members(file)


def _single_member(name: str, content: IO[bytes]) -> Member:
    return Member(name, False, False, lambda: contextlib.nullcontext(content))


def _is_tar(content: IO[bytes]) -> bool:
    """Return True if the content begins with the header of a tar member."""
    block = b""
    while len(block) < tarfile.BLOCKSIZE and (part := content.read(tarfile.BLOCKSIZE - len(block))):
        block += part
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


# --- zip ----------------------------------------------------------------------------------------------------------


def _zip_members(file: BinaryIO) -> Iterator[Member]:
    # ZipFile reads as many bytes as this function returns, regardless of the number of entries that the archive claims.
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    if end and end[5] > MAX_DIRECTORY_BYTES:
        raise UnpackError("The archive's directory is too large. Pack fewer files.")
    with zipfile.ZipFile(file) as archive:
        # Some Windows programs separate folders with backslashes, which are part of a name elsewhere.
        has_slashes = any("/" in info.orig_filename for info in archive.infolist())
        for info in archive.infolist():
            yield _zip_member(archive, info, "/" if has_slashes else "\\")


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, separator: str) -> Member:
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        # The other methods can request any amount of memory, and zipfile doesn't limit it.
        raise UnpackError(
            f"{info.filename[:200]!r} uses an unsupported compression method. Compress the zip file with deflate."
        )
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise UnpackError(f"{info.filename[:200]!r} is a link or a device. Pack only files and folders.")
    # orig_filename: the name before zipfile truncates it at a NUL or replaces separators.
    name = info.orig_filename.replace(separator, "/")
    return Member(name, name.endswith("/"), bool(mode & 0o100), lambda: archive.open(info))


# --- tar ----------------------------------------------------------------------------------------------------------


def _tar_members(raw: IO[bytes]) -> Iterator[Member]:
    reader = _LimitedReader(raw)
    with tarfile.open(fileobj=cast(Any, reader), mode="r|") as tar:
        while info := _next(tar, reader):
            yield _tar_member(tar, info, reader)


def _next(tar: tarfile.TarFile, reader: "_LimitedReader") -> tarfile.TarInfo | None:
    reader.left = MAX_HEADER_BYTES
    info = tar.next()
    tar.members = []  # type: ignore[attr-defined]  # otherwise tarfile retains every header
    if len(tar.pax_headers) > MAX_GLOBAL_ATTRIBUTES:
        raise UnpackError(f"The archive has more than {MAX_GLOBAL_ATTRIBUTES} global attributes. Pack it without them.")
    return info


def _tar_member(tar: tarfile.TarFile, info: tarfile.TarInfo, reader: "_LimitedReader") -> Member:
    if not (info.isdir() or info.isreg()):
        raise UnpackError(f"{info.name[:200]!r} is a link or a device. Pack only files and folders.")
    reader.left = None

    def content() -> AbstractContextManager[IO[bytes]]:
        return cast(IO[bytes], tar.extractfile(info))

    return Member(info.name, info.isdir(), bool(info.mode & 0o100), content)


class _LimitedReader:
    """A reader that limits the size of headers: `left` bytes remain, None while reading content."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw, self.left = raw, cast(int | None, MAX_HEADER_BYTES)

    def read(self, size: int) -> bytes:
        data = self._raw.read(size)
        if self.left is not None:
            self.left -= len(data)
            if self.left < 0:
                raise UnpackError("A header in the archive is too large. Use shorter names and fewer attributes.")
        return data


class _Xz:
    """A reader for xz files with a memory limit, which LZMAFile doesn't have."""

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
                    raise EOFError("it is truncated")
            if block := self._lzma.decompress(data, size):
                return block


_COMPRESSIONS: dict[bytes, Callable[[BinaryIO], IO[bytes]]] = {  # by the first bytes of a file
    b"\x1f\x8b": lambda file: cast(IO[bytes], gzip.GzipFile(fileobj=file)),
    b"BZh": lambda file: cast(IO[bytes], bz2.BZ2File(file)),
    b"\xfd7zXZ\x00": lambda file: cast(IO[bytes], _Xz(file)),
}
