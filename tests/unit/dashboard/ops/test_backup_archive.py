"""The file format of a backup: intact archives are restored as written, all others are rejected."""

import io
import os
import subprocess
import tarfile
from pathlib import Path
from typing import BinaryIO

import pytest

from dashboard.ops.backup.archive import SUMS, DamagedArchiveError, Reader, Writer

CONTENT = {"files/ab/one": os.urandom(70_000), "mms/empty": b"", "mms/known/two.json": b"{}"}


def written(tmp_path: Path) -> bytes:
    target = io.BytesIO()
    writer = Writer(target)
    writer.add_bytes("about.json", b"about")
    for name, content in CONTENT.items():
        source = tmp_path / "source"
        source.write_bytes(content)
        with source.open("rb") as file:
            writer.add(name, file)
    writer.finish()
    return target.getvalue()


def unpack(data: bytes, folder: Path) -> None:
    reader = Reader(io.BytesIO(data))
    about = reader.read_small("about.json")
    reader.unpack(folder)
    assert about == b"about"


def with_members(*members: tarfile.TarInfo) -> bytes:
    """Return a tar archive with about.json and these members, as an attacker might send it."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in (tarfile.TarInfo("about.json"), *members):
            content = b"about" if member.name == "about.json" else b"evil"
            member.size = len(content) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(content))
    return target.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


def test_contents_are_restored_as_written(tmp_path: Path) -> None:
    unpack(written(tmp_path), tmp_path / "out")
    for name, content in CONTENT.items():
        assert (tmp_path / "out" / name).read_bytes() == content


def test_tar_and_sha256sum_can_read_the_file(tmp_path: Path) -> None:
    (tmp_path / "backup.tar").write_bytes(written(tmp_path))
    subprocess.run(["tar", "xf", "backup.tar"], cwd=tmp_path, check=True)
    subprocess.run(["sha256sum", "--check", "--quiet", SUMS], cwd=tmp_path, check=True)


def test_a_flipped_byte_is_detected(tmp_path: Path) -> None:
    data = written(tmp_path)
    tried = unnoticed = 0
    for position in [*range(0, 2048, 3), *range(2048, len(data) - 1024, 997)]:
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        tried += 1
        try:
            unpack(bytes(damaged), tmp_path / f"out-{position}")
        except DamagedArchiveError:
            continue
        unnoticed += 1
        # Only padding, which is never read, may differ.
        for name, content in CONTENT.items():
            assert (tmp_path / f"out-{position}" / name).read_bytes() == content, position
    assert tried > 500
    assert unnoticed < tried / 2


def test_an_incomplete_archive_is_rejected(tmp_path: Path) -> None:
    data = written(tmp_path)
    for length in range(0, len(data) - 1024, 509):
        with pytest.raises(DamagedArchiveError):
            unpack(data[:length], tmp_path / f"out-{length}")


HOSTILE = [
    member("../outside"),
    member("files/../../outside"),
    member("/outside"),
    member("./about.json"),
    member(".hidden"),
    member("files//x"),
    member("files\\x"),
    member("files/x\n"),
    member("a" * 200),  # needs an extended header
    member("link", tarfile.SYMTYPE, "/etc/passwd"),
    member("link", tarfile.LNKTYPE, "about.json"),
    member("folder", tarfile.DIRTYPE),
    member("fifo", tarfile.FIFOTYPE),
    member("device", tarfile.CHRTYPE),
    member("sparse", tarfile.GNUTYPE_SPARSE),
    member("about.json"),
]


@pytest.mark.parametrize("evil", HOSTILE, ids=lambda one: f"{one.name[:20]!r} type {one.type!r}")
def test_members_that_no_backup_contains_are_rejected(tmp_path: Path, evil: tarfile.TarInfo) -> None:
    out = tmp_path / "data" / "out"
    with pytest.raises(DamagedArchiveError):
        unpack(with_members(evil), out)
    assert [path for path in tmp_path.rglob("*") if path.is_file() or path.is_symlink()] == []


def test_an_existing_link_is_not_followed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "mms").mkdir(parents=True)
    (out / "mms/empty").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="exists"):
        unpack(written(tmp_path), out)
    assert not (tmp_path / "target").exists()


def test_a_negative_size_is_rejected(tmp_path: Path) -> None:
    data = bytearray(with_members(member("files/x")))
    header = tarfile.TarInfo("files/x")
    header.size = -1
    data[1024:1536] = header.tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(DamagedArchiveError):
        unpack(bytes(data), tmp_path / "out")


class Shrunk(io.BytesIO):
    """A log that is truncated after its size was read."""

    def __init__(self, before: BinaryIO) -> None:
        super().__init__(b"new\n")
        self._before = before

    def fileno(self) -> int:
        return self._before.fileno()


def test_a_log_truncated_while_it_is_read_is_padded(tmp_path: Path) -> None:
    target = io.BytesIO()
    writer = Writer(target)
    writer.add_bytes("about.json", b"about")
    with (tmp_path / "long.log").open("w+b") as before:
        before.truncate(3000)
        writer.add("mms/builds/x.log", Shrunk(before))
    writer.finish()
    unpack(target.getvalue(), tmp_path / "out")
    assert (tmp_path / "out/mms/builds/x.log").read_bytes() == b"new\n" + b"\n" * 2996
