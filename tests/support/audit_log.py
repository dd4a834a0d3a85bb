"""Access to the protection of the audit log."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection

from dashboard.audit.models import END_PRUNING, START_PRUNING

FOREVER = "9999-12-31 00:00:00"


def allow_deleting_entries() -> None:
    """Allow deleting all entries, as tests do when they reset the database."""
    with connection.cursor() as cursor:
        cursor.execute(START_PRUNING, [FOREVER])


@contextmanager
def protected_audit_log() -> Iterator[None]:
    """Protect the audit log during the block, as in a real site."""
    with connection.cursor() as cursor:
        cursor.execute(END_PRUNING, [FOREVER])
    try:
        yield
    finally:
        allow_deleting_entries()
