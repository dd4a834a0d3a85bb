"""Detection of temporary database failures: locked, full or unreachable.

This module never queries the database.
"""

import logging
from sqlite3 import Error as SQLiteError

from django.db import Error, InterfaceError, OperationalError

BUSY = "Another program has locked the database for too long."
FULL = "The database disk is full or can’t be written to."
UNREACHABLE = "The database is unreachable."
SQLITE_MESSAGES = {
    "SQLITE_BUSY": BUSY,
    "SQLITE_LOCKED": BUSY,
    "SQLITE_FULL": FULL,
    "SQLITE_IOERR": FULL,
    "SQLITE_READONLY": FULL,
}
# By SQLSTATE: disk_full; lock_not_available, serialization_failure, deadlock_detected, query_canceled (a timeout).
POSTGRESQL_MESSAGES = {"53100": FULL, "55P03": BUSY, "40001": BUSY, "40P01": BUSY, "57014": BUSY}


def user_message(error: BaseException | None) -> str:
    """Return a sentence that describes the database failure, or "" if `error` has another cause."""
    if not isinstance(error, OperationalError | InterfaceError):
        return ""
    cause = error.__cause__
    if isinstance(cause, SQLiteError):
        return _sqlite_message(getattr(cause, "sqlite_errorname", ""))
    return POSTGRESQL_MESSAGES.get(getattr(cause, "sqlstate", None) or "", UNREACHABLE)


def _sqlite_message(name: str) -> str:
    """Return the message for a result code such as SQLITE_IOERR_WRITE. SQLITE_ERROR means an invalid statement."""
    if name == "SQLITE_ERROR":
        return ""
    return next((text for prefix, text in SQLITE_MESSAGES.items() if name.startswith(prefix)), UNREACHABLE)


class ShortTracebackFilter(logging.Filter):
    """Logging filter that reduces the traceback of a temporary database failure to one line.

    A full disk can cause many of them.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, Error) and (message := user_message(error)):
            record.msg, record.args = f"{record.getMessage()} {message} ({error})", ()
            record.exc_info = record.exc_text = None
        return True
