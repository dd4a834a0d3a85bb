"""The form that an upload comes in, read while it arrives: what is taken of it, and why it may be refused."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

PAUSE_SECONDS = 60.0  # a client may be silent this long while it sends
SLOWEST = 1000.0  # bytes a second, after the first minute: who drips holds a connection and a file for ever
LINGER_SECONDS = 2.0  # what still comes in after a refusal is thrown away this long, so that the refusal is read
FORM_BYTES = 16 * 1024  # of the form around the file


class Refused(Exception):
    """The upload is not taken. `code` is what the form's page knows it by; the text is for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Gone(Exception):
    """The client has left."""


class Body:
    """The request's body, part by part."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._more = True

    async def parts(self) -> AsyncIterator[bytes]:
        """What has not been read yet. Raises Gone when the client leaves, Refused when it is silent or too slow."""
        latest = time.monotonic() + PAUSE_SECONDS
        while self._more:
            try:
                async with asyncio.timeout(max(0.0, min(PAUSE_SECONDS, latest - time.monotonic()))):
                    message = await self._receive()
            except TimeoutError:
                raise Refused(408, "failed", "The upload was too slow, so nothing was stored. Send it again.") from None
            latest += len(message.get("body", b"")) / SLOWEST
            if message["type"] == "http.disconnect":
                raise Gone
            self._more = message.get("more_body", False)
            if part := message.get("body", b""):
                yield part

    async def throw_away(self) -> None:
        """Read what still comes, for a while: a connection closed on a client that sends loses it the answer."""
        with suppress(TimeoutError, Gone, Refused):
            async with asyncio.timeout(LINGER_SECONDS):
                async for _ in self.parts():
                    pass


class Form:
    """Picks the file out of a multipart form while it comes in."""

    def __init__(self, content_type: str) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise Refused(400, "no_file", "Send the file as a form (multipart/form-data).")
        self.name = ""
        self.size = 0  # bytes of the file so far
        self.held = 0  # of these, not taken yet
        self._parts: list[bytes] = []
        self._field, self._value = b"", b""
        self.complete = False  # whether the form has come to its end
        self._in_file = False
        self._other = 0
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_part_data": self._part_data,
                "on_end": self._end,
            },
        )

    def feed(self, data: bytes) -> None:
        """Raises Refused when this is no such form."""
        try:
            self._parser.write(data)
        except FormParserError:
            raise Refused(400, "no_file", "The form couldn’t be read. Send it again.") from None
        if self._other > FORM_BYTES:
            raise Refused(400, "no_file", "The form contains more than one file. Send one file.")

    def take(self) -> list[bytes]:
        """The bytes of the file that came since the last call."""
        parts, self._parts, self.held = self._parts, [], 0
        return parts

    def _part_begin(self) -> None:
        self._in_file = False
        self._field = self._value = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            options = parse_options_header(self._value)[1]
            if options.get(b"name") == b"file" and options.get(b"filename") and not self.name:
                self.name = options[b"filename"].decode("utf-8", "replace")
                self._in_file = True
        self._field = self._value = b""

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._parts.append(data[start:end])
            self.held += end - start
            self.size += end - start
        else:
            self._other += end - start

    def _end(self) -> None:
        self.complete = True
