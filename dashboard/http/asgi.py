"""Helpers for plain ASGI applications: request headers, query parameters and responses."""

from collections.abc import Iterable
from urllib.parse import parse_qs

from asgiref.typing import ASGISendCallable, HTTPScope

Headers = Iterable[tuple[bytes, bytes]]


def header(scope: HTTPScope, name: bytes) -> str:
    """Return the first header with this name (lower case), or "" if there is none."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def query_parameters(scope: HTTPScope) -> dict[str, str]:
    """Return the parameters of the query string. The last value of a repeated parameter wins."""
    return {name: values[-1] for name, values in parse_qs(scope["query_string"].decode("latin-1")).items()}


async def start_response(send: ASGISendCallable, status: int, headers: Headers) -> None:
    """Send the status line and the headers."""
    await send({"type": "http.response.start", "status": status, "headers": headers, "trailers": False})


async def send_chunk(send: ASGISendCallable, chunk: bytes) -> None:
    """Send a part of the body. More parts must follow, or `end_response`."""
    await send({"type": "http.response.body", "body": chunk, "more_body": True})


async def end_response(send: ASGISendCallable, body: bytes = b"") -> None:
    """Send the last part of the body."""
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def send_response(send: ASGISendCallable, status: int, headers: Headers, body: bytes) -> None:
    """Send a complete response."""
    await start_response(send, status, headers)
    await end_response(send, body)
