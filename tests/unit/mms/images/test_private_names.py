"""Private names of the standard library that unpacking and layers rely on."""

import io
import tarfile
import zipfile

import pytest


def test_zipfile_reads_the_size_of_the_directory_that_it_reports() -> None:
    """If this fails after an upgrade of Python, adapt unpack.py: directories may be too large."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", b"x")
    data = file.getvalue()
    record = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    assert record[5] == data.index(b"PK\x05\x06") - data.index(b"PK\x01\x02")


def test_zipfile_uses_that_function(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_record(_: object) -> None:
        return None

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", b"x")
    monkeypatch.setattr(zipfile, "_EndRecData", no_record)
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(file)


def test_tarfile_retains_headers_in_the_list_that_is_cleared() -> None:
    """If this fails after an upgrade of Python, adapt unpack.py and layers.py: headers may accumulate in memory."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("a", "b"):
            archive.addfile(tarfile.TarInfo(name))
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r|") as archive:
        first = archive.next()
        assert archive.members == [first]  # type: ignore[attr-defined]
        archive.members = []  # type: ignore[attr-defined]
        second = archive.next()
        assert second
        assert (second.name, archive.members) == ("b", [second])  # type: ignore[attr-defined]
