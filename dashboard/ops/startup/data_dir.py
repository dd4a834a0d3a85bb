"""Whether the files in DATA_DIR and the database belong together: what judges one by the other asks here first."""

import os
import stat
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connection

SERVICE_GID = 65521  # mms.engines.process.sandbox.SERVICE_GID, which is out of reach from here


def close_to_others() -> None:
    """What this process and its children write from now on is for the owner alone, and so is what lies there already:
    an earlier release, or a copy, may have left it open. Deeper down it is closed by the folder it lies in."""
    os.umask(0o077)
    for path in [settings.DATA_DIR, *settings.DATA_DIR.iterdir()]:
        found = path.lstat()
        others = 0o067 if found.st_gid == SERVICE_GID else 0o077  # running services pass through it, no more
        if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) & others and not path.is_symlink():
            path.chmod(stat.S_IMODE(found.st_mode) & ~others & 0o777)


def unfinished_restore() -> Path:
    """The file that is there while `manage.py restore` puts things into place, and after it was killed at that."""
    return Path(settings.DATA_DIR, "restore_unfinished")


def refuse_half_a_restore() -> None:
    if unfinished_restore().exists():
        raise ImproperlyConfigured(
            f"A restore into {settings.DATA_DIR} isn't finished. If no restore is running, run the same command again: "
            f"{unfinished_restore().read_text().strip()}"
        )


def note_database() -> None:
    """Note which database the data in DATA_DIR belongs to: the one that the site started with last."""
    path = _noted_database()
    if not path.exists() or path.read_text().strip() != _database():
        path.touch(mode=0o600)
        path.write_text(f"{_database()}\n")


def refuse_another_database() -> None:
    """What is used is not for just any database to say that the environment of a shell happens to name."""
    noted = _noted_database().read_text().strip() if _noted_database().exists() else ""
    if noted and noted != _database():
        raise ImproperlyConfigured(
            f"The site with the data in {settings.DATA_DIR} uses {noted}, but this command would use {_database()}. "
            "Run it in the site's environment, with the same DATABASE_URL. If the new database is right, start "
            "the site with it first."
        )


def _noted_database() -> Path:
    return Path(settings.DATA_DIR, "database")


def _database() -> str:
    """Which database this is, in words: kind, host, port and name, never who uses it or a password."""
    about: dict[str, Any] = connection.settings_dict
    if connection.vendor == "sqlite":
        path = Path(about["NAME"])
        return f"SQLite {path.relative_to(settings.DATA_DIR) if path.is_relative_to(settings.DATA_DIR) else path}"
    options = about["OPTIONS"]
    host, port = about["HOST"] or options.get("host", ""), about["PORT"] or options.get("port", 5432)
    return f"PostgreSQL {host}:{port}/{about['NAME']}"
