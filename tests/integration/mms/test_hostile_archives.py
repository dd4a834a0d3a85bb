"""Malicious archives that escape, overwrite files, or exhaust memory, time or disk: rejected without leftovers.

Each is unpacked in a separate process, to measure its memory and to stop it after a time limit.
"""

import gzip
import io
import json
import struct
import subprocess
import sys
import tarfile
import textwrap
import warnings
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

LIMIT = 4 << 20  # bytes that may be unpacked
MEMORY = 200  # MiB
SECONDS = 60  # hanging ones take hours
MEMBERS = 20_000  # instead of the real limit, which takes longer to reach

Member = tuple[str, bytes]
END = bytes(1024)


# --- archives -------------------------------------------------------------------------------------------------------


def zipped(*members: Member, mode: int = 0o100644, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members:
            info = zipfile.ZipInfo("placeholder")
            info.filename, info.external_attr, info.compress_type = name, mode << 16, method
            archive.writestr(info, data)
    return file.getvalue()


def tarred(*members: Member | tarfile.TarInfo) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return file.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> bytes:
    return entry(name, kind, size=size).tobuf(tarfile.GNU_FORMAT)


def extended(body: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """Return a header with attributes for the next header."""
    return header("pax", len(body), kind) + body + bytes(-len(body) % 512)


def attribute(key: bytes, value: bytes) -> bytes:
    length = next(n for n in range(1, 1 << 24) if n == len(b"%d %s=%s\n" % (n, key, value)))
    return b"%d %s=%s\n" % (length, key, value)


def with_attributes(name: str = "a", **attributes: bytes) -> bytes:
    body = b"".join(attribute(key.replace("__", ".").encode(), value) for key, value in attributes.items())
    return extended(body) + header(name) + END


def long_name(name: bytes) -> bytes:
    return header("././@LongLink", len(name) + 1, tarfile.GNUTYPE_LONGNAME) + name.ljust(512, b"\0")


def negative_in_base_256() -> bytes:
    block = bytearray(header("a"))
    block[124:136] = b"\xff" * 10 + b"\xfe\x00"
    block[148:156] = b"%06o\0 " % (256 + sum(block[:148]) + sum(block[156:512]))
    return bytes(block) + END


def lying(claimed: int) -> bytes:
    """Return a zip whose headers claim a wrong size."""
    honest = struct.pack("<I", LIMIT + 1)
    return zipped(("zeros", bytes(LIMIT + 1))).replace(honest, struct.pack("<I", claimed))


def overlapping(count: int) -> bytes:
    """Return a zip whose entries share the same bytes, like Fifield's better zip bomb."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    plain = bytes(LIMIT // 8)
    data = packer.compress(plain) + packer.flush()
    common = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, zlib.crc32(plain), len(data), len(plain), 1, 0)
    body = b"PK\x03\x04" + common + b"0" + data
    directory = b"".join(
        b"PK\x01\x02\x14\x03" + common + struct.pack("<HHHII", 0, 0, 0, 0, 0) + b"%d" % number
        for number in range(count)
    )
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, count, count, len(directory), len(body), 0)
    return body + directory + end


def quine() -> bytes:
    """Return nested gzip files. Only the outermost is decompressed."""
    data = tarred(("zeros", bytes(LIMIT + 1)))
    for _ in range(5):
        data = gzip.compress(data)
    return data


def deep(members: int, depth: int) -> bytes:
    """Return members whose paths imply many folders."""
    return b"".join(
        extended(attribute(b"path", b"%d/" % number + b"a/" * depth + b"x")) + header("x") for number in range(members)
    )


def attributes_for_all(members: int) -> bytes:
    return b"".join(
        extended(b"".join(attribute(b"%d.%d" % (number, key), b"v" * 900) for key in range(20)), tarfile.XGLTYPE)
        + header(f"f{number}")
        for number in range(members)
    )


UP = ("..", "../x", "a/../../x", "a/..", "./../x", "a/b/../../../x", "..//x", "/etc/x", "//x", "///etc/x")
FOREIGN = ("C:x", "C:\\x", "c:/x", "\\x", "\\\\server\\share\\x", "..\\x", "a\\..\\x")
MIXED = ("a\\b", "..\\x", "a/b\\c")  # beside a path with slashes
ODD = ("a\0b", "a\nb", "a\rb", "a\x1b[2J", "a\u202eb", "a\u200bb", "a\u2028b", "a\x7f", "x" * 300, "a/" * 600 + "x")
SAME = (
    ("same", "same"),
    ("Model", "model"),
    ("stra\u00dfe", "STRASSE"),
    ("caf\u00e9", "cafe\u0301"),
    ("\u212a", "k"),
    ("\u03a3", "\u03c2"),
    ("\u1fb3", "\u03b1\u0345"),
    ("\u0390", "\u1fd3"),
    ("file", "file/below"),
    ("folder/below", "folder"),
    ("Folder/a", "folder/b"),
    ("./a", "a"),
    ("a//b", "a/b"),
    ("a/./b", "a/b"),
)
LINKS = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"V", b"M", b"D")

ARCHIVES: dict[str, Callable[[], bytes]] = {
    **{f"zip {name[:40]!r}": partial(zipped, ("good", b"x"), (name, b"x")) for name in UP + FOREIGN + ODD},
    **{f"tar {name[:40]!r}": partial(tarred, ("good", b"x"), (name, b"x")) for name in UP + FOREIGN + MIXED + ODD[1:]},
    **{f"zip {name!r} beside slashes": partial(zipped, ("go/od", b"x"), (name, b"x")) for name in MIXED},
    **{f"zip {names}": partial(zipped, *((name, b"x") for name in names)) for names in SAME},
    **{f"tar {names}": partial(tarred, *((name, b"x") for name in names)) for names in SAME},
    **{f"tar of type {kind!r}": partial(tarred, entry("evil", kind, linkname="/etc/x")) for kind in LINKS},
    **{f"zip of mode {mode:o}": partial(zipped, ("evil", b"/etc/passwd"), mode=mode)
       for mode in (0o120777, 0o020666, 0o060666, 0o010666, 0o140777)},
    "hard link to a deeper link": lambda: tarred(
        entry("a/b/c", tarfile.DIRTYPE),
        entry("a/b/c/link", tarfile.SYMTYPE, linkname="../../../escape"),
        entry("link", tarfile.LNKTYPE, linkname="a/b/c/link"),
    ),
    "folder replaced by a link": lambda: tarred(
        entry("a", tarfile.SYMTYPE, linkname="/tmp"), ("a/x", b"x")
    ),
    "GNU long name that leads out": lambda: long_name(b"../../x") + header("a") + END,
    "GNU long name after long name": lambda: long_name(b"abc") * 3000 + header("a") + END,
    "attributes after attributes": lambda: extended(attribute(b"comment", b"x")) * 3000 + header("a") + END,
    "path attribute that leads out": lambda: with_attributes(path=b"../../x"),
    "path attribute that is absolute": lambda: with_attributes(path=b"/etc/x"),
    "path attribute with NUL": lambda: with_attributes(path=b"a\0b"),
    "path attribute in another charset": lambda: with_attributes(hdrcharset=b"BINARY", path=b"\xff\xfe"),
    "negative size by attribute": lambda: with_attributes(size=b"-512"),
    "very negative size by attribute": lambda: with_attributes(size=b"-100000"),
    "sparse file of a terabyte": lambda: with_attributes(
        GNU__sparse__major=b"0", GNU__sparse__minor=b"1", GNU__sparse__map=b"0,1", GNU__sparse__size=b"1" + b"0" * 12
    ),
    "attributes that take quadratic time": lambda: extended(b"1" * (1 << 20)) + header("a") + END,
    "attributes for all members": lambda: attributes_for_all(300),
    "more folders than members": lambda: deep(MEMBERS // 50, 60),
    "folders within folders": lambda: deep(1, 500) + END,
    "many members": lambda: b"".join(header(f"{number}") for number in range(MEMBERS + 1)) + END,
    "the same folder for ever": lambda: header(".", kind=tarfile.DIRTYPE) * (MEMBERS + 1) + END,
    "a bomb": lambda: tarred(("zeros", bytes(LIMIT + 1))),
    "a bomb of many": lambda: tarred(*((f"{number}", bytes(LIMIT // 50)) for number in range(51))),
    "a zip bomb": lambda: zipped(("zeros", bytes(LIMIT + 1))),
    "a zip that lies low": lambda: lying(100),
    "a zip that lies about nothing": lambda: lying(0),
    "a zip that lies high": lambda: lying(0xFFFFFFFE),
    "a zip of overlapping entries": lambda: overlapping(5000),
    "a zip by LZMA": lambda: zipped(("zeros", bytes(LIMIT + 1)), method=zipfile.ZIP_LZMA),
    "a zip by bzip2": lambda: zipped(("zeros", bytes(300 << 20)), method=zipfile.ZIP_BZIP2),
    "gzip within gzip": quine,
}  # fmt: skip

# Valid archives with dangerous attributes, which are dropped.
HARMLESS: dict[str, Callable[[], bytes]] = {
    "set-uid in a tar": lambda: tarred(entry("a", mode=0o6755)),
    "set-uid in a zip": lambda: zipped(("a", b""), mode=0o106755),
    "all modes in a tar": lambda: tarred(entry("a", mode=0o7777), entry("b", tarfile.DIRTYPE, mode=0o7777)),
    "nobody may read": lambda: tarred(entry("a", mode=0)),
    "an owner": lambda: tarred(entry("a", uid=4242, gid=4242, uname="nobody", gname="nobody")),
    "negative size in base 256": negative_in_base_256,
    "a size beyond numbers": lambda: with_attributes(size=b"9" * 5000),
    "security attributes": lambda: with_attributes(SCHILY__xattr__security__capability=b"\x01\x00\x00\x02"),
    "a zip in a zip": lambda: zipped(("inner.zip", zipped(("../x", b"x")))),
}

PROGRAM = textwrap.dedent("""
    import json, os, sys
    from pathlib import Path
    import mms.images.sources.unpack
    from mms.images.sources.unpack import UnpackError, unpack
    mms.images.sources.unpack.MAX_MEMBERS = int(sys.argv[3])
    archive = Path(sys.argv[1])
    try:
        said = f"unpacked {unpack(archive, archive.parent / 'out', int(sys.argv[2]))} bytes"
    except UnpackError as error:
        said = f"refused: {error}"
    peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(json.dumps([said, int(peak) >> 10]))
""")


def unpacked(data: bytes, folder: Path) -> tuple[str, int]:
    """Unpack `data` to `folder` in a separate process; return its output and its peak memory in MiB."""
    archive = folder / "archive"
    archive.write_bytes(data)
    command = [sys.executable, "-c", PROGRAM, str(archive), str(LIMIT), str(MEMBERS)]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return f"not through after {SECONDS} s", 0
    finally:
        archive.unlink()
    if run.returncode:
        return run.stderr.strip().splitlines()[-1], 0
    said, memory = json.loads(run.stdout)
    return said, memory


@pytest.mark.slow
def test_no_archive_escapes_or_exceeds_its_limits(tmp_path: Path, record: dict[str, object]) -> None:
    found = []
    for number, (name, make) in enumerate(ARCHIVES.items()):
        outside = tmp_path / f"{number}"
        folder = outside / "a" / "b" / "c"
        folder.mkdir(parents=True)
        said, memory = unpacked(make(), folder)
        left = [str(path.relative_to(outside)) for path in outside.rglob("*") if not folder.is_relative_to(path)]
        if not said.startswith("refused: ") or not said.isprintable() or left or memory > MEMORY:
            found.append(f"{name}: {said[:100]}; {memory} MiB; left {left[:3]}")
    record |= {"hostile archives": len(ARCHIVES), "findings": len(found)}
    assert not found, "\n".join(found)


@pytest.mark.slow
def test_owners_modes_and_attributes_of_an_archive_are_ignored(tmp_path: Path, record: dict[str, object]) -> None:
    found = []
    for number, (name, make) in enumerate(HARMLESS.items()):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        said, _ = unpacked(make(), folder)
        for path in folder.rglob("*"):
            status = path.lstat()
            plain = path.is_dir() or (path.is_file() and not path.is_symlink())
            if not plain or status.st_mode & 0o7022 or (status.st_uid, status.st_gid) != _mine(tmp_path):
                found.append(f"{name}: {path.name} has mode {status.st_mode:o} and owner {status.st_uid}")
        if not said.startswith("unpacked"):
            found.append(f"{name}: {said}")
    record |= {"archives with odd attributes": len(HARMLESS), "findings": len(found)}
    assert not found, "\n".join(found)


def _mine(folder: Path) -> tuple[int, int]:
    return folder.stat().st_uid, folder.stat().st_gid
