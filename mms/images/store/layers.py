"""Image layers: a folder as a deterministic tar in a deterministic gzip, streamed.

The same tree gives the same bytes on every machine: entries are sorted, without owners and times, with one of two
modes, and all parameters of the compressor are fixed here. Only a few blocks are held in memory.
"""

import hashlib
import os
import stat
import tarfile
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from mms.system import disk

MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
# Names all choices below that affect the bytes. Part of the key by which a layer is found.
FORMAT = "tar-pax gzip-1m-zlib1"

BLOCK_BYTES = 1 << 20
COMPRESSION_LEVEL = 1  # takes a third of the time of level 6, for a seventh more bytes
SAMPLE_BYTES = 1 << 15
WORKERS = min(4, os.cpu_count() or 1)  # affects the speed, never the bytes
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_LAST_BLOCK = b"\x03\x00"


class DamagedBlobError(Exception):
    """A blob's content doesn't match its digest."""


@dataclass(frozen=True)
class Layer:
    """A layer in the store: the digest of the compressed blob, and the diff id, which is the digest of its tar."""

    digest: str
    diff_id: str
    size: int


def write_layer(root: Path, blob: Path) -> Layer:
    """Write the tree below `root`, with paths as in the image, to the new file `blob`."""
    with blob.open("xb") as file, GzipWriter(file) as archive:
        # No larger bufsize: tarfile copies its entire buffer for each 16 kB, and GzipWriter buffers anyway.
        with tarfile.open(fileobj=cast(Any, archive), mode="w|", format=tarfile.PAX_FORMAT) as tar:
            first: dict[tuple[int, int], str] = {}
            for path in _walk(root):
                _add(tar, path, path.relative_to(root).as_posix(), first)
        return archive.finish()


def _walk(root: Path) -> Iterator[Path]:
    """Yield all paths below `root`, sorted, folders before their contents."""
    for entry in sorted(root.iterdir()):
        yield entry
        if entry.is_dir() and not entry.is_symlink():
            yield from _walk(entry)


def _add(tar: tarfile.TarFile, path: Path, name: str, first: dict[tuple[int, int], str]) -> None:
    """Add one entry. Hard links to a file already added are stored as links."""
    status = path.lstat()
    entry = tarfile.TarInfo(name)
    entry.mode = 0o755 if stat.S_ISDIR(status.st_mode) or status.st_mode & 0o100 else 0o644
    if stat.S_ISDIR(status.st_mode):
        entry.type = tarfile.DIRTYPE
        tar.addfile(entry)
    elif not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{name} is neither a file nor a folder")
    elif status.st_nlink > 1 and (seen := first.setdefault((status.st_dev, status.st_ino), name)) != name:
        entry.type, entry.linkname = tarfile.LNKTYPE, seen
        tar.addfile(entry)
    else:
        entry.size = status.st_size
        with path.open("rb") as file:
            tar.addfile(entry, file)


def unpack_layer(blob: Path, diff_id: str, target: Path) -> None:
    """Unpack a layer written by `write_layer` to the new folder `target`. Raises DamagedBlobError."""
    target.mkdir(parents=True)
    with blob.open("rb") as file:
        raw = _GzipReader(file)
        with tarfile.open(fileobj=cast(Any, raw), mode="r|", bufsize=BLOCK_BYTES) as tar:
            while entry := tar.next():
                _extract(tar, entry, target)
                tar.members = []  # type: ignore[attr-defined]  # otherwise tarfile retains every header
        raw.drain()
    if raw.digest != diff_id:
        raise DamagedBlobError(f"{blob.name} doesn't contain the layer {diff_id}.")


def _extract(tar: tarfile.TarFile, entry: tarfile.TarInfo, target: Path) -> None:
    path = target / entry.name
    if entry.isdir():
        path.mkdir()
    elif entry.islnk():
        os.link(target / entry.linkname, path)
    elif source := tar.extractfile(entry):
        with path.open("xb") as file:
            while block := source.read(BLOCK_BYTES):
                file.write(block)
        path.chmod(entry.mode & 0o555)


class _GzipReader:
    """Decompresses a gzip file and computes the digest of its content."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._zlib, self._hash = file, zlib.decompressobj(31), hashlib.sha256()

    def read(self, size: int) -> bytes:
        """Return at most `size` decompressed bytes; b"" at the end."""
        while not self._zlib.eof:
            data = self._zlib.unconsumed_tail or self._file.read(BLOCK_BYTES)
            if not data:
                raise DamagedBlobError("The blob is truncated.")
            try:
                block = self._zlib.decompress(data, size)
            except zlib.error as error:
                raise DamagedBlobError(f"The blob is damaged: {error}") from error
            if block:
                self._hash.update(block)
                return block
        return b""

    def drain(self) -> None:
        """Read to the end, for the digest."""
        while self.read(BLOCK_BYTES):
            pass

    @property
    def digest(self) -> str:
        """Return the digest of the bytes read so far."""
        return f"sha256:{self._hash.hexdigest()}"


class GzipWriter:
    """A writable file that compresses independent blocks in parallel. The output depends only on the input.

    Use as a context manager; `finish` returns the Layer.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._raw, self._packed = hashlib.sha256(), hashlib.sha256()
        self._crc = self._length = self._size = 0
        self._buffer = bytearray()
        self._pool = ThreadPoolExecutor(WORKERS)
        self._pending: deque[Future[bytes]] = deque()
        self._emit(_GZIP_HEADER)

    def __enter__(self) -> "GzipWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def write(self, data: bytes) -> int:
        """Compress `data`."""
        self._buffer += data
        while len(self._buffer) >= BLOCK_BYTES:
            self._submit(bytes(self._buffer[:BLOCK_BYTES]))
            del self._buffer[:BLOCK_BYTES]
        return len(data)

    def finish(self) -> Layer:
        """Write the remaining blocks and return the layer."""
        if self._buffer:
            self._submit(bytes(self._buffer))
        while self._pending:
            self._emit(self._pending.popleft().result())
        self._emit(_LAST_BLOCK + self._crc.to_bytes(4, "little") + (self._length % 2**32).to_bytes(4, "little"))
        self._file.flush()
        return Layer(f"sha256:{self._packed.hexdigest()}", f"sha256:{self._raw.hexdigest()}", self._size)

    def _submit(self, block: bytes) -> None:
        self._pending.append(self._pool.submit(_deflate, block))
        self._raw.update(block)
        self._crc = zlib.crc32(block, self._crc)
        self._length += len(block)
        if len(self._pending) > 2 * WORKERS:
            self._emit(self._pending.popleft().result())

    def _emit(self, data: bytes) -> None:
        self._packed.update(data)
        self._size += len(data)
        self._file.write(data)
        disk.start_writeback(self._file, self._size, len(data))


def _deflate(block: bytes) -> bytes:
    """Return one block as a part of a deflate stream that ends at a byte boundary."""
    sample = block[:SAMPLE_BYTES]
    if len(zlib.compress(sample, COMPRESSION_LEVEL)) > 0.9 * len(sample):
        return _stored(block)  # such as network weights: compressing 2 GB would take a minute and save a tenth
    compressor = zlib.compressobj(COMPRESSION_LEVEL, zlib.DEFLATED, -15)
    return compressor.compress(block) + compressor.flush(zlib.Z_SYNC_FLUSH)


def _stored(block: bytes) -> bytes:
    """Return the block as uncompressed parts of a deflate stream."""
    pieces = []
    for start in range(0, len(block), 65535):
        piece = block[start : start + 65535]
        length = len(piece)
        pieces += [b"\x00", length.to_bytes(2, "little"), (length ^ 0xFFFF).to_bytes(2, "little"), piece]
    return b"".join(pieces)
