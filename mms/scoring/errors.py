"""Error responses and log lines. No function here raises, whatever a driver's exception does."""

import json
import os
import sys
import traceback
from contextlib import suppress

MAX_MESSAGE_CHARS = 2000
MAX_TRACE_CHARS = 20_000


def error(code: str, message: str) -> bytes:
    """Return the JSON of an error response."""
    return json.dumps({"error": {"code": code, "message": shorten(message)}}).encode()


def shorten(text: str, limit: int = MAX_MESSAGE_CHARS) -> str:
    """Return `text`, without its middle if it is longer than `limit`."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]} ... ({len(text) - 2 * half} characters omitted) ... {text[-half:]}"


def describe(raised: BaseException) -> str:
    """Return the type and message of an exception, also if its `__str__` raises."""
    name = type(raised).__name__
    try:
        message = str.__str__(str(raised))  # the second one turns a subclass of str into a plain str
    except BaseException as second:
        return f"{name} (its message is unavailable: __str__ raised {type(second).__name__})"
    return f"{name}: {shorten(message)}" if message else name


def log(text: str) -> None:
    """Write lines to stderr, after everything written to stdout so far."""
    with suppress(BaseException):
        sys.stdout.flush()
    try:
        print(text, file=sys.__stderr__, flush=True)  # not sys.stderr, which a driver may have replaced or closed
    except BaseException:
        with suppress(BaseException):
            os.write(2, text.encode(errors="replace") + b"\n")


def log_exception(raised: BaseException) -> None:
    """Write the trace of an exception to stderr."""
    try:
        text = "".join(shorten(line, MAX_MESSAGE_CHARS) for line in traceback.format_exception(raised))
    except BaseException:
        text = describe(raised)
    log(shorten(text, MAX_TRACE_CHARS).rstrip("\n"))


# For failures in which not even an error response can be created.
UNKNOWN_FAILURE = error("DriverFailed", "The request failed, and its error couldn't be reported.")
