"""Unpacking of valid and malicious archives. A rejected archive leaves no files behind."""

import bz2
import gzip
import io
import lzma
import os
import resource
import struct
import subprocess
import sys
import tarfile
import textwrap
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from mms.images.sources.unpack import UnpackError, unpack

LIMIT = 10 << 20
Entry = tuple[str, bytes]
TarMode = Literal["w", "w:gz", "w:bz2", "w:xz"]


def make_zip(path: Path, entries: list[Entry], mode: int = 0o100644) -> Path:
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            info = zipfile.ZipInfo("placeholder")
            info.filename, info.external_attr = name, mode << 16
            archive.writestr(info, data)
    return path


def make_tar(path: Path, entries: list[Entry], mode: TarMode = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def add(archive: tarfile.TarFile, name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    archive.addfile(info, io.BytesIO(bytes(info.size)) if info.isreg() else None)


def refused(archive: Path, limit: int = LIMIT) -> str:
    """Return why the archive is rejected. Check that it leaves no files, inside or outside the folder."""
    before = sorted(archive.parent.rglob("*"))
    with pytest.raises(UnpackError) as caught:
        unpack(archive, archive.parent / "out", limit)
    assert sorted(archive.parent.rglob("*")) == before
    return str(caught.value)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("it.zip", make_zip),
        ("it.tar", make_tar),
        ("it.tar.gz", lambda path, entries: make_tar(path, entries, "w:gz")),
        ("it.tar.bz2", lambda path, entries: make_tar(path, entries, "w:bz2")),
        ("it.tar.xz", lambda path, entries: make_tar(path, entries, "w:xz")),
    ],
)
def test_archive_types_are_detected_by_content(
    tmp_path: Path, name: str, make: Callable[[Path, list[Entry]], Path]
) -> None:
    big = os.urandom(700_000)
    archive = make(tmp_path / name, [("model/weights.bin", big), ("./model/vocabulary.txt", b"words"), ("e", b"")])
    archive = archive.rename(tmp_path / "download")
    assert unpack(archive, tmp_path / "out", LIMIT) == 700_005
    assert tree(tmp_path / "out") == {"model/weights.bin": big, "model/vocabulary.txt": b"words", "e": b""}


def test_compressed_tars_in_several_streams_are_read_to_the_end(tmp_path: Path) -> None:
    plain = make_tar(tmp_path / "it.tar", [("a", bytes(3000)), ("b", b"end")]).read_bytes()
    packers: list[Callable[[bytes], bytes]] = [gzip.compress, bz2.compress, lzma.compress]
    for number, packer in enumerate(packers):
        (tmp_path / "it").write_bytes(packer(plain[:1000]) + packer(plain[1000:]))
        unpack(tmp_path / "it", tmp_path / f"out{number}", LIMIT)
        assert tree(tmp_path / f"out{number}") == {"a": bytes(3000), "b": b"end"}


def test_folders_are_preserved_and_modes_are_normalized(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "it.tar", "w") as archive:
        add(archive, "empty", tarfile.DIRTYPE, mode=0o2777)
        add(archive, "locked", tarfile.DIRTYPE, mode=0)
        add(archive, "locked/run.sh", size=1, mode=0o4777)
        add(archive, "locked/data", size=1, mode=0o000)
    unpack(tmp_path / "it.tar", tmp_path / "out", LIMIT)
    modes = {path.name: path.stat().st_mode & 0o7777 for path in (tmp_path / "out").rglob("*")}
    assert modes == {"empty": 0o755, "locked": 0o755, "run.sh": 0o755, "data": 0o644}


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize(
    "name",
    [
        "../escape",
        "a/../../escape",
        "a/..",
        "/etc/cron.d/escape",
        "//escape",
        "..\\escape",
        "C:\\escape",
        "C:escape",
        "\\\\host\\share",
        "new\nline",
        "bell\x07",
        "x" * 300,
        "/".join(["deep"] * 400),
    ],
)
def test_unsafe_and_invalid_names_are_rejected(
    tmp_path: Path, make: Callable[[Path, list[Entry]], Path], name: str
) -> None:
    refused(make(tmp_path / "it", [("good", b"x"), (name, b"x")]))


def test_backslashes_separate_folders_in_a_zip_without_slashes(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "it", [("model\\", b""), ("model\\a.bin", b"a"), ("b.bin", b"b")])
    unpack(archive, tmp_path / "out", LIMIT)
    assert tree(tmp_path / "out") == {"model/a.bin": b"a", "b.bin": b"b"}


@pytest.mark.parametrize(
    ("make", "name"), [(make_zip, "model\\a.bin"), (make_tar, "model\\a.bin"), (make_zip, "..\\a")]
)
def test_backslashes_beside_slashes_and_in_a_tar_are_rejected(
    tmp_path: Path, make: Callable[[Path, list[Entry]], Path], name: str
) -> None:
    assert "has a backslash" in refused(make(tmp_path / "it", [("model/b.bin", b"x"), (name, b"x")]))


@pytest.mark.parametrize("packer", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize(
    ("name", "path"),
    [("model.pkl.gz", "model.pkl"), ("my model.PKL.GZ", "my model.PKL"), ("m.xz", "m"), ("a.b.bz2", "a.b")],
)
def test_a_single_compressed_file_is_unpacked(
    tmp_path: Path, packer: Callable[[bytes], bytes], name: str, path: str
) -> None:
    data = os.urandom(700_000)
    (tmp_path / "it").write_bytes(packer(data))
    assert unpack(tmp_path / "it", tmp_path / "out", LIMIT, name) == 700_000
    assert tree(tmp_path / "out") == {path: data}


@pytest.mark.parametrize("data", [b"", b"x", bytes(512), bytes(5000)])
def test_small_and_empty_compressed_files_are_unpacked(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "it").write_bytes(gzip.compress(data))
    unpack(tmp_path / "it", tmp_path / "out", LIMIT, "x.gz")
    assert tree(tmp_path / "out") == {"x": data}


def test_a_compressed_tar_is_unpacked_whatever_its_name(tmp_path: Path) -> None:
    make_tar(tmp_path / "it", [("a", b"x")], "w:gz")
    unpack(tmp_path / "it", tmp_path / "out", LIMIT, "net.gz")
    assert tree(tmp_path / "out") == {"a": b"x"}


@pytest.mark.parametrize("name", ["model.tar.gz", "model.tgz", "model", ".gz", "../x.gz", "a\\b.gz"])
def test_a_compressed_file_without_a_usable_name_is_rejected(tmp_path: Path, name: str) -> None:
    (tmp_path / "it").write_bytes(gzip.compress(b"not a tar"))
    with pytest.raises(UnpackError):
        unpack(tmp_path / "it", tmp_path / "out", LIMIT, name)
    assert not (tmp_path / "out").exists()


def test_a_bomb_in_a_single_compressed_file_stops_at_the_limit(tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(gzip.compress(bytes(LIMIT + 1)))
    with pytest.raises(UnpackError, match="larger than"):
        unpack(tmp_path / "it", tmp_path / "out", LIMIT, "zeros.gz")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"7z\xbc\xaf\x27\x1c\0\4", "is a 7-Zip archive"),
        (b"Rar!\x1a\7\1\0", "is a RAR archive"),
        (b"\x28\xb5\x2f\xfd\0", "compressed with Zstandard"),
        (b"\x80\4\x95 a pickle", "turn unpacking off if the file isn't an archive"),
    ],
)
def test_the_message_for_other_files_names_the_kinds_that_are_read(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "it").write_bytes(data)
    message = refused(tmp_path / "it")
    assert says in message
    assert ".zip, .tar, .tar.gz, .tar.bz2, .tar.xz" in message


def test_a_zip_name_with_a_hidden_end_is_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "it", [("good.txtX../escape", b"x")])
    archive.write_bytes(archive.read_bytes().replace(b"good.txtX../escape", b"good.txt\0../escape"))
    refused(archive)


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize(
    "names",
    [
        ["same", "same"],
        ["Model.pkl", "model.PKL"],
        ["straße", "STRASSE"],
        ["caf\u00e9", "cafe\u0301"],
        ["file", "file/below"],
        ["folder/below", "folder"],
        ["Folder/a", "folder/b"],
        ["./same", "same"],
    ],
)
def test_members_that_would_be_the_same_file_are_refused(
    tmp_path: Path, make: Callable[[Path, list[Entry]], Path], names: list[str]
) -> None:
    assert "same file" in refused(make(tmp_path / "it", [(name, b"x") for name in names]))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "it", "w") as archive:
        add(archive, "good", size=3)
        add(archive, "evil", kind, linkname="/etc/passwd")
    assert "'evil' is a link or a device" in refused(tmp_path / "it")


def test_the_hard_link_to_a_deeper_symbolic_link_is_refused(tmp_path: Path) -> None:
    """CVE-2026-11940: gets through tarfile's own data filter on Python 3.11.7."""
    with tarfile.open(tmp_path / "it", "w") as archive:
        add(archive, "a/b/c", tarfile.DIRTYPE)
        add(archive, "a/b/c/link", tarfile.SYMTYPE, linkname="../../../escape")
        add(archive, "link", tarfile.LNKTYPE, linkname="a/b/c/link")
    refused(tmp_path / "it")


@pytest.mark.parametrize("mode", [0o120777, 0o020666, 0o060666, 0o010666, 0o140777])
def test_links_and_devices_in_a_zip_are_refused(tmp_path: Path, mode: int) -> None:
    assert "link or a device" in refused(make_zip(tmp_path / "it", [("evil", b"/etc/passwd")], mode))


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "it", [("secret", b"x")])
    data = bytearray(archive.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(bytes(data))
    assert "encrypted" in refused(archive)


@pytest.mark.parametrize("packer", [gzip.compress, bz2.compress, lzma.compress])
def test_a_tar_bomb_stops_at_the_limit(tmp_path: Path, packer: Callable[[bytes], bytes]) -> None:
    make_tar(tmp_path / "plain", [("zeros", bytes(LIMIT + 1))])
    (tmp_path / "it").write_bytes(packer((tmp_path / "plain").read_bytes()))
    assert "larger than" in refused(tmp_path / "it")


def test_a_zip_bomb_stops_at_the_limit_whatever_its_headers_say(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "it", [("zeros", bytes(LIMIT + 1))])
    honest = struct.pack("<I", LIMIT + 1)
    archive.write_bytes(archive.read_bytes().replace(honest, struct.pack("<I", 100)))
    refused(archive)


def test_many_small_files_stop_at_the_limit_of_all_together(tmp_path: Path) -> None:
    refused(make_zip(tmp_path / "it", [(f"file-{number}", bytes(1000)) for number in range(50)]), limit=40_000)


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mms.images.sources.unpack.MAX_MEMBERS", 10)
    assert "more than 10 members" in refused(make_tar(tmp_path / "it", [(f"{number}", b"") for number in range(11)]))


def test_the_holes_of_a_sparse_file_count(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "it", "w", format=tarfile.PAX_FORMAT) as archive:
        headers = {
            "GNU.sparse.major": "0",
            "GNU.sparse.minor": "1",
            "GNU.sparse.map": "0,1",
            "GNU.sparse.size": "9" * 15,
        }
        add(archive, "holes", size=1, pax_headers=headers)
    refused(tmp_path / "it")


@pytest.mark.parametrize(
    "data", [b"", b"not an archive at all", b"PK\x03\x04", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\x00", bytes(100)]
)
def test_other_files_are_rejected(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "it").write_bytes(data)
    refused(tmp_path / "it")


@pytest.mark.parametrize(
    "make",
    [
        make_zip,
        lambda path, entries: make_tar(path, entries, "w:gz"),
        lambda path, entries: make_tar(path, entries, "w:xz"),
    ],
)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_cut_off_archive_is_refused(tmp_path: Path, make: Callable[[Path, list[Entry]], Path], share: float) -> None:
    archive = make(tmp_path / "it", [("a", os.urandom(50_000)), ("b", os.urandom(50_000))])
    archive.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * share)])
    refused(archive)


def test_a_changed_byte_in_a_zip_is_detected(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "it", [("a", os.urandom(50_000))])
    data = bytearray(archive.read_bytes())
    data[25_000] ^= 1
    archive.write_bytes(bytes(data))
    refused(archive)


def test_an_existing_folder_is_not_unpacked_into(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("x")
    with pytest.raises(FileExistsError):
        unpack(make_zip(tmp_path / "it", [("a", b"x")]), tmp_path / "out", LIMIT)
    assert tree(tmp_path / "out") == {"mine": b"x"}


def peak_memory(archive: Path) -> tuple[str, int]:
    """Unpack `archive` in a separate process; return its output and its peak memory in MiB."""
    program = textwrap.dedent("""
        import sys
        from pathlib import Path
        from mms.images.sources.unpack import UnpackError, unpack
        try:
            unpack(Path(sys.argv[1]), Path(sys.argv[1] + ".out"), 1 << 40)
            print("unpacked")
        except UnpackError as error:
            print(error)
        # not ru_maxrss, which remembers the size of the process that forked
        print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
    """)
    limits = lambda: resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))  # noqa: E731
    run = subprocess.run(
        [sys.executable, "-c", program, str(archive)], capture_output=True, text=True, check=True, preexec_fn=limits
    )
    said, _, memory = run.stdout.strip().rpartition("\n")
    return said, int(memory) >> 10


def header(name: str, size: int, kind: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_header_of_a_gigabyte_is_not_read_into_memory(tmp_path: Path, kind: bytes) -> None:
    with gzip.open(tmp_path / "it", "wb", 1) as file:
        file.write(header("header", 1 << 30, kind))
        for _ in range(64):
            file.write(bytes(1 << 20))
    said, memory = peak_memory(tmp_path / "it")
    assert "header in the archive is too large" in said
    assert memory < 100


def test_a_gigabyte_of_sparse_map_is_not_read_into_memory(tmp_path: Path) -> None:
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "x", "GNU.sparse.realsize": "1"}
    info = tarfile.TarInfo("holes")
    info.size, info.pax_headers = 1 << 30, headers
    with gzip.open(tmp_path / "it", "wb", 1) as file:
        file.write(info.tobuf(tarfile.PAX_FORMAT))
        file.write((b"99999999\n" + b"1\n" * 300)[:512])
        for _ in range(64):
            file.write(b"1\n" * (1 << 19))
    said, memory = peak_memory(tmp_path / "it")
    assert "too large" in said
    assert memory < 150


def test_a_zip_with_a_huge_directory_is_rejected_without_reading_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "it", "w") as archive:
        archive.writestr("a", b"x")
    data = (tmp_path / "it").read_bytes()
    begin = data.index(b"PK\x01\x02")
    entry, end = data[begin : data.index(b"PK\x05\x06")], bytearray(data[data.index(b"PK\x05\x06") :])
    count = (40 << 20) // len(entry)
    end[12:16] = struct.pack("<I", count * len(entry))
    (tmp_path / "it").write_bytes(data[:begin] + entry * count + bytes(end))
    said, memory = peak_memory(tmp_path / "it")
    assert "directory is too large" in said
    assert memory < 100


def test_an_xz_that_needs_a_gigabyte_of_memory_is_rejected(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]
    make_tar(tmp_path / "plain", [("a", b"x")])
    packer = lzma.LZMACompressor(lzma.FORMAT_XZ, filters=filters)
    (tmp_path / "it").write_bytes(packer.compress((tmp_path / "plain").read_bytes()) + packer.flush())
    said, memory = peak_memory(tmp_path / "it")
    assert "unsupported type" in said
    assert memory < 100
