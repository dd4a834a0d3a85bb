"""The data directory: its permissions, and checks that its files match the configured database."""

import os
import stat
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connection

SERVICE_GID = 65521  # mms.engines.process.sandbox.SERVICE_GID, which may not be imported here


def restrict_permissions() -> None:
    """Set umask 077 and remove the access of other users from DATA_DIR and its top-level entries.

    Earlier releases or copies may have left them open. Deeper files are protected by the directories above them.
    """
    os.umask(0o077)
    for path in [settings.DATA_DIR, *settings.DATA_DIR.iterdir()]:
        status = path.lstat()
        others = 0o067 if status.st_gid == SERVICE_GID else 0o077  # services need to traverse it
        if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) & others and not path.is_symlink():
            path.chmod(stat.S_IMODE(status.st_mode) & ~others & 0o777)


def unfinished_restore() -> Path:
    """Return the path of the file that marks an unfinished restore. It contains the command to run again."""
    return Path(settings.DATA_DIR, "restore_unfinished")


def require_finished_restore() -> None:
    """Raise ImproperlyConfigured while a restore is running, or after one was killed."""
    if unfinished_restore().exists():
        raise ImproperlyConfigured(
            f"A restore into {settings.DATA_DIR} isn't finished, so its files may not match the database. If no "
            f"restore is running, run the command again: {unfinished_restore().read_text().strip()}"
        )


def record_database() -> None:
    """Record the configured database as the one that the data in DATA_DIR belongs to."""
    path = _recorded_database()
    if not path.exists() or path.read_text().strip() != describe_database():
        path.touch(mode=0o600)
        path.write_text(f"{describe_database()}\n")


def require_recorded_database() -> None:
    """Raise ImproperlyConfigured if DATA_DIR was last used with another database than the configured one.

    A shell may lack the environment variables of the site, DATABASE_URL in particular.
    """
    recorded = _recorded_database().read_text().strip() if _recorded_database().exists() else ""
    if recorded and recorded != describe_database():
        raise ImproperlyConfigured(
            f"The site in {settings.DATA_DIR} uses {recorded}, but this command would use "
            f"{describe_database()}. Run it with the environment of the site, especially its DATABASE_URL. If the "
            "database has changed, start the site with the new one first."
        )


def _recorded_database() -> Path:
    return Path(settings.DATA_DIR, "database")


def describe_database() -> str:
    """Return the kind, host, port and name of the configured database, without user and password."""
    config: dict[str, Any] = connection.settings_dict
    if connection.vendor == "sqlite":
        path = Path(config["NAME"])
        return f"SQLite {path.relative_to(settings.DATA_DIR) if path.is_relative_to(settings.DATA_DIR) else path}"
    options = config["OPTIONS"]
    host, port = config["HOST"] or options.get("host", ""), config["PORT"] or options.get("port", 5432)
    return f"PostgreSQL {host}:{port}/{config['NAME']}"
