"""Versions of each account's lists, and the resources that changed in each version.

Database triggers write both tables, so that no code path can omit it. Each transaction that changes resources of a list
gives the list a new version. On PostgreSQL the triggers run at commit, under a lock on the list's row: versions become
visible in order, and the lock is the last one that a transaction acquires.
"""

import secrets
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Max
from django.utils import timezone

from mms.models import Change, Collection

KEEP_DAYS = 7  # changes; an older cursor has expired
BATCH_ROWS = 1000  # in one transaction
EVENTS = ("INSERT", "UPDATE", "DELETE")

# Per table: the list, the condition under which a row is listed, and the row's account and ID, with {row} for NEW or
# OLD. A service's representation includes its revisions.
_TABLES = {
    "mms_model": ("models", "TRUE", "{row}.account_id", "{row}.id"),
    "mms_manifest": ("manifests", "TRUE", "{row}.account_id", "{row}.id"),
    "mms_image": ("images", "{row}.digest <> ''", "{row}.account_id", "{row}.id"),
    "mms_service": ("services", "{row}.deleted_at IS NULL", "{row}.account_id", "{row}.id"),
    "mms_revision": (
        "services",
        "EXISTS (SELECT 1 FROM mms_service s WHERE s.id = {row}.service_id AND s.deleted_at IS NULL)",
        "(SELECT s.account_id FROM mms_service s WHERE s.id = {row}.service_id)",
        "{row}.service_id",
    ),
}
_RECORD = """
    INSERT INTO mms_collection (account_id, noun, version, epoch, oldest)
    SELECT {account}, '{noun}', 1, {epoch}, 0 WHERE {account} IS NOT NULL
    ON CONFLICT (account_id, noun) DO UPDATE SET version = mms_collection.version + 1;
    INSERT INTO mms_change (account_id, noun, resource_id, version, removed, changed_at)
    SELECT c.account_id, c.noun, {id}, c.version, {removed}, {now} FROM mms_collection c
    WHERE c.account_id = {account} AND c.noun = '{noun}'
    ON CONFLICT (noun, resource_id) DO UPDATE
    SET version = excluded.version, removed = excluded.removed, changed_at = excluded.changed_at;
"""


def has_triggers(connection: BaseDatabaseWrapper) -> bool:
    """Return True if all triggers exist. A process that is killed after a migration hasn't created them."""
    if connection.vendor == "postgresql":
        query = "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"
        expected = {f"{table}_change" for table in _TABLES}
    else:
        query = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        expected = {f"{table}_{event.lower()}_change" for table in _TABLES for event in EVENTS}
    with connection.cursor() as cursor:
        cursor.execute(query)
        return expected <= {name for (name,) in cursor.fetchall()}


def drop_triggers(connection: BaseDatabaseWrapper) -> None:
    """Drop the triggers, if they exist, before a migration."""
    existing = set(connection.introspection.table_names())
    with connection.cursor() as cursor:
        for table in existing & set(_TABLES):
            if connection.vendor == "postgresql":
                cursor.execute(f"DROP TRIGGER IF EXISTS {table}_change ON {table}")
            else:
                for event in EVENTS:
                    cursor.execute(f"DROP TRIGGER IF EXISTS {table}_{event.lower()}_change")


def install_triggers(connection: BaseDatabaseWrapper) -> None:
    """Create or replace the triggers, after a migration. Expire all cursors if triggers were missing.

    Uses one transaction: a process that is killed has installed all of them or none, and concurrent changes by other
    processes are recorded.
    """
    install = _install_in_postgresql if connection.vendor == "postgresql" else _install_in_sqlite
    with transaction.atomic(using=connection.alias):
        were_missing = not has_triggers(connection)
        with connection.cursor() as cursor:
            for table, definition in _TABLES.items():
                install(cursor, table, *definition)
        if were_missing:
            expire_cursors()  # changes weren't recorded


def _install_in_sqlite(cursor: Any, table: str, noun: str, listed: str, account: str, id: str) -> None:
    for event in EVENTS:
        row = "OLD" if event == "DELETE" else "NEW"
        is_listed = listed.format(row=row)
        is_gone = event == "DELETE" and table != "mms_revision"
        was_listed = "FALSE" if event == "INSERT" else listed.format(row="OLD")
        record = _RECORD.format(
            account=account.format(row=row),
            noun=noun,
            id=id.format(row=row),
            removed="TRUE" if is_gone else f"NOT ({is_listed})",
            epoch="lower(hex(randomblob(8)))",
            now="strftime('%Y-%m-%d %H:%M:%f', 'now')",
        )
        name = f"{table}_{event.lower()}_change"
        cursor.execute(f"DROP TRIGGER IF EXISTS {name}")
        # sqlite3 substitutes no parameters here, so percent signs stay as they are.
        cursor.execute(
            f"CREATE TRIGGER {name} AFTER {event} ON {table} WHEN {is_listed} OR {was_listed} BEGIN {record} END"
        )


def _install_in_postgresql(cursor: Any, table: str, noun: str, listed: str, account: str, id: str) -> None:
    branches = []
    for row, condition in (("OLD", "TG_OP = 'DELETE'"), ("NEW", "TG_OP <> 'DELETE'")):
        is_gone = row == "OLD" and table != "mms_revision"
        record = _RECORD.format(
            account=account.format(row=row),
            noun=noun,
            id=id.format(row=row),
            removed="TRUE" if is_gone else f"NOT ({listed.format(row=row)})",
            epoch="substr(md5(random()::text), 1, 16)",
            now="clock_timestamp()",
        )
        was_listed = f"TG_OP = 'UPDATE' AND {listed.format(row='OLD')}" if row == "NEW" else "FALSE"
        branches.append(
            f"IF {condition} THEN IF {listed.format(row=row)} OR ({was_listed}) THEN {record} END IF; END IF;"
        )
    name = f"{table}_change"
    body = "".join(branches)
    cursor.execute(
        f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NULL; END $$"
    )
    cursor.execute(f"DROP TRIGGER IF EXISTS {name} ON {table}")
    cursor.execute(
        f"CREATE CONSTRAINT TRIGGER {name} AFTER INSERT OR UPDATE OR DELETE ON {table} "
        f"DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION {name}()"
    )


def expire_cursors() -> None:
    """Invalidate all cursors and entity tags. Call this after a restore, because versions are then reused."""
    for row in Collection.objects.all():
        Collection.objects.filter(pk=row.pk).update(epoch=secrets.token_hex(8), oldest=row.version)
    Change.objects.all().delete()


def delete_old() -> None:
    """Delete changes older than KEEP_DAYS, in batches. Cursors from before them expire."""
    before = timezone.now() - timedelta(days=KEEP_DAYS)
    for row in Collection.objects.all():
        rows = Change.objects.filter(account_id=row.account_id, noun=row.noun, changed_at__lt=before)
        newest = rows.aggregate(newest=Max("version"))["newest"]
        if newest is None:
            continue
        # First the cursors, then the changes: a reader in between must not miss any.
        Collection.objects.filter(pk=row.pk).update(oldest=newest)
        while keys := list(rows.filter(version__lte=newest).values_list("pk", flat=True)[:BATCH_ROWS]):
            with transaction.atomic():
                Change.objects.filter(pk__in=keys).delete()
