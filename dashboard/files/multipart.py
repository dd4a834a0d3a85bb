"""Incremental parser for the multipart form of an upload."""

import re
from urllib.parse import unquote_to_bytes

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

_EXTENDED_NAME = re.compile(rb";\s*filename\*\s*=\s*utf-8'[^']*'([^;\s]+)", re.IGNORECASE)
MAX_FORM_BYTES = 16 * 1024  # of everything in the form except the file


class InvalidFormError(Exception):
    """The body isn't a multipart form with one file. The message is shown to the user."""


class UploadForm:
    """Extracts the file from a multipart form while it arrives."""

    def __init__(self, content_type: str) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise InvalidFormError("Send the file as a form (multipart/form-data).")
        self.name = ""
        self.size = 0  # bytes of the file so far
        self.buffered = 0  # of these, bytes that `take` hasn't returned yet
        self.is_complete = False
        self._chunks: list[bytes] = []
        self._header_name, self._header_value = b"", b""
        self._is_in_file = False
        self._other_bytes = 0
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_part_data": self._on_part_data,
                "on_end": self._on_end,
            },
        )

    def feed(self, data: bytes) -> None:
        """Parse the next part of the body. Raises InvalidFormError."""
        try:
            self._parser.write(data)
        except FormParserError:
            raise InvalidFormError("The form couldn’t be read. Send it again.") from None
        if self._other_bytes > MAX_FORM_BYTES:
            raise InvalidFormError("The form contains more than one file. Send one file.")

    def take(self) -> list[bytes]:
        """Return the bytes of the file received since the last call."""
        chunks, self._chunks, self.buffered = self._chunks, [], 0
        return chunks

    def _on_part_begin(self) -> None:
        self._is_in_file = False
        self._header_name = self._header_value = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            options = parse_options_header(self._header_value)[1]
            name = options.get(b"filename", b"").decode("utf-8", "replace") or _extended_name(self._header_value)
            if options.get(b"name") == b"file" and name and not self.name:
                self.name = name
                self._is_in_file = True
        self._header_name = self._header_value = b""

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_in_file:
            self._chunks.append(data[start:end])
            self.buffered += end - start
            self.size += end - start
        else:
            self._other_bytes += end - start

    def _on_end(self) -> None:
        self.is_complete = True


def _extended_name(header: bytes) -> str:
    """Return the file name of a client that sends only the form of RFC 5987; "" if there is none."""
    match = _EXTENDED_NAME.search(header)
    return unquote_to_bytes(match[1]).decode("utf-8", "replace") if match else ""
