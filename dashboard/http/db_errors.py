"""A database that cannot do its part just now (locked, full, out of reach): told apart from an error of ours, in words.

Nothing here asks the database.
"""

import logging
from sqlite3 import Error as SQLiteError

from django.db import Error, InterfaceError, OperationalError

BUSY = "Another program has locked the database for too long."
FULL = "The database disk is full or can’t be written to."
AWAY = "The database is unreachable."
SQLITE = {
    "SQLITE_BUSY": BUSY,
    "SQLITE_LOCKED": BUSY,
    "SQLITE_FULL": FULL,
    "SQLITE_IOERR": FULL,
    "SQLITE_READONLY": FULL,
}
# By error code: disk_full; lock_not_available, serialization_failure, deadlock_detected, query_canceled (a time-out).
POSTGRESQL = {"53100": FULL, "55P03": BUSY, "40001": BUSY, "40P01": BUSY, "57014": BUSY}


def reason(error: BaseException | None) -> str:
    """What is the matter with the database, as a sentence; "" where `error` says something else."""
    if not isinstance(error, OperationalError | InterfaceError):
        return ""
    cause = error.__cause__
    if isinstance(cause, SQLiteError):
        return _of_sqlite(getattr(cause, "sqlite_errorname", ""))
    return POSTGRESQL.get(getattr(cause, "sqlstate", None) or "", AWAY)


def _of_sqlite(name: str) -> str:
    """By the name of the result code, e.g. SQLITE_IOERR_WRITE. SQLITE_ERROR is a mistake in a statement: ours."""
    if name == "SQLITE_ERROR":
        return ""
    return next((text for known, text in SQLITE.items() if name.startswith(known)), AWAY)


class OneLine(logging.Filter):
    """Of such an error the log gets a line, not a trace: there may be many, on a disk that is full."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, Error) and (said := reason(error)):
            record.msg, record.args = f"{record.getMessage()} {said} ({error})", ()
            record.exc_info = record.exc_text = None
        return True
