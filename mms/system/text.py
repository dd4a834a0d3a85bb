"""Decoding of text files from outside: one rule for requirements, conda files, schemas and request bodies.

Text is UTF-8, or UTF-16 or UTF-32 as Windows programs write it. A byte order mark is removed.
"""

import codecs
from pathlib import Path

BYTE_ORDER_MARK = "\ufeff"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class UndecodableTextError(ValueError):
    """The bytes aren't text. The message completes a sentence about the file: "isn't UTF-8 text (...)"."""


def decode(data: bytes) -> str:
    """Return the text without its byte order mark. Raises UndecodableTextError."""
    name = encoding(data)
    try:
        return without_mark(data.decode(name))
    except UnicodeDecodeError as error:
        if name != "utf-8":
            raise UndecodableTextError(f"is damaged {name.upper()} text. Save it as UTF-8") from None
        line = data.count(b"\n", 0, error.start) + 1
        reason = f"line {line} has the byte 0x{data[error.start]:02x}"
        raise UndecodableTextError(f"isn't UTF-8 text: {reason}. Save it as UTF-8") from None


def convert_to_utf8(path: Path) -> str:
    """Convert a UTF-16 or UTF-32 file to UTF-8 and return its former encoding. Return "" for any other file."""
    data = path.read_bytes()
    name = encoding(data)
    if name == "utf-8":
        return ""
    try:
        path.write_text(decode(data), encoding="utf-8", newline="")
    except UndecodableTextError:
        return ""
    return name


def encoding(data: bytes) -> str:
    """Return the encoding of `data`, from its byte order mark or the zero bytes of its first character."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            return name
    # Files of these kinds begin with an ASCII character, which UTF-16 writes as two bytes, one of them zero.
    if len(data) >= 2 and not data[1] and data[0] and data[2:4] != b"\0\0":
        return "utf-16-le"
    if len(data) >= 2 and data[1] and not data[0]:
        return "utf-16-be"
    return "utf-8"


def without_mark(text: str) -> str:
    """Return `text` without a byte order mark at its start."""
    return text.removeprefix(BYTE_ORDER_MARK)
