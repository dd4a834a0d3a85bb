"""Text files from outside are decoded by one rule."""

import codecs
from pathlib import Path

import pytest

from mms.system import text

WORDS = "six==1.16.0\n# Modèle\n"


@pytest.mark.parametrize(
    "data",
    [
        WORDS.encode(),
        codecs.BOM_UTF8 + WORDS.encode(),
        WORDS.encode("utf-16"),
        codecs.BOM_UTF16_BE + WORDS.encode("utf-16-be"),
        WORDS.encode("utf-16-le"),
        WORDS.encode("utf-16-be"),
        WORDS.encode("utf-32"),
    ],
)
def test_files_from_windows_programs_are_decoded(data: bytes) -> None:
    assert text.decode(data) == WORDS


@pytest.mark.parametrize("data", [WORDS.encode("utf-16"), WORDS.encode("utf-16-be"), WORDS.encode("utf-32")])
def test_a_file_is_converted_to_utf_8(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "it").write_bytes(data)
    assert text.convert_to_utf8(tmp_path / "it").startswith("utf-")
    assert (tmp_path / "it").read_bytes() == WORDS.encode()


@pytest.mark.parametrize("data", [WORDS.encode(), codecs.BOM_UTF8 + b"x", b"", WORDS.encode("latin-1"), b"\xff\xfex"])
def test_other_files_are_not_converted(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "it").write_bytes(data)
    assert text.convert_to_utf8(tmp_path / "it") == ""
    assert (tmp_path / "it").read_bytes() == data


@pytest.mark.parametrize("data", [b"", b"a", codecs.BOM_UTF8, codecs.BOM_UTF16_LE])
def test_short_files_are_decoded(data: bytes) -> None:
    assert text.decode(data) == data.decode("ascii", "ignore")


def test_other_encodings_are_rejected_with_their_line() -> None:
    with pytest.raises(text.UndecodableTextError, match="line 2 has the byte 0xe8"):
        text.decode(WORDS.encode("latin-1"))


def test_a_damaged_utf_16_file_is_rejected() -> None:
    with pytest.raises(text.UndecodableTextError, match="damaged UTF-16-LE text"):
        text.decode("six".encode("utf-16") + b"x")
