"""Read logs of operations and services, from a position to the end."""

import re
from dataclasses import replace
from urllib.parse import quote

from deployments.live import events

PLAIN_TEXT = "text/plain; charset=utf-8"
MAX_ERROR_CHARS = 300  # of the error in a header
POSITION = re.compile(r"\d{1,20}(-\d{1,20})?", re.ASCII)


def read_log(key: str, after: str) -> events.LogPart:
    """Return all lines after the position `after`, or all lines of the log if `after` isn't a position."""
    part = events.read_log(key, after if POSITION.fullmatch(after) else "0")
    lines = part.lines
    while (rest := events.read_log(key, part.position)).lines:
        part = rest
        lines = [*lines, *rest.lines]
    return replace(part, lines=lines)


def log_text(part: events.LogPart) -> str:
    """Return the lines as text, each with a line break."""
    return "".join(f"{line}\n" for line in part.lines)


def log_headers(part: events.LogPart, has_ended: bool) -> dict[str, str]:
    """Return the headers that tell a client where to continue reading.

    `X-Log-End` is set when the log is complete. An ended log without any lines may still be fetched from the
    server, so it doesn't count as complete. `X-Log-Error` says, percent-encoded, why no newer lines could be fetched.
    """
    headers = {"X-Log-Position": part.position, "Cache-Control": "no-store"}
    if part.error:
        headers["X-Log-Error"] = quote(part.error[:MAX_ERROR_CHARS])
    return {**headers, "X-Log-End": "1"} if has_ended and not part.lines and part.position != "0" else headers
