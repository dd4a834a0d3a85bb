"""Trial writes to the database and the data folder, and the check of the secret key.

A full disk still allows reading, so only writing reveals it.
"""

import tempfile
import threading
import time

from django.conf import settings
from django.db import Error, connection

from dashboard.http import db_errors
from dashboard.ops.supervisor.health import WORKS
from encryption import check

CACHE_SECONDS = 5.0  # anyone can request /healthz, so not every request may cause a write
TRIAL_BYTES = 64 * 1024

_lock = threading.Lock()
_checked_at = float("-inf")
_states: dict[str, str] = {}


def states() -> dict[str, str]:
    """Return the state of the database, the secret key and the data folder: WORKS or the problem.

    It is at most CACHE_SECONDS old.
    """
    global _checked_at, _states
    with _lock:
        if time.monotonic() - _checked_at >= CACHE_SECONDS:
            _states = {"database": _database(), "data folder": _data_folder()}
            if _states["database"] == WORKS:
                _states["secret key"] = _secret_key()
            _checked_at = time.monotonic()
        return dict(_states)


def forget() -> None:
    """Check again at the next call."""
    global _checked_at
    _checked_at = float("-inf")


def _secret_key() -> str:
    """Return WORKS if the secrets in the database are encrypted with the site's key, else the problem."""
    try:
        return "not the key of the database; run doctor" if check.key_problem() else WORKS
    except Error:
        return "unknown, because the database isn't responding"


def _database() -> str:
    """Write one row. Without a commit, SQLite would write nothing to the disk."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE dashboard_trialwrite SET at = %s", [time.time()])
    except Error as error:
        return (db_errors.user_message(error) or "not responding").rstrip(".")
    return WORKS


def _data_folder() -> str:
    try:
        with tempfile.TemporaryFile(dir=settings.TMP_DIR) as file:
            file.write(b"\0" * TRIAL_BYTES)
            file.flush()
    except OSError as error:
        return f"can’t be written to: {error.strerror or error}"
    return WORKS
