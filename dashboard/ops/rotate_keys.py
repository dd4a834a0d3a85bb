"""Re-encryption of every stored secret with the current SECRET_KEY, so that the previous one can be removed.

All encrypted fields of all models are included automatically. A value is replaced only if it is still the one that was
read, so the site can stay in use. An interrupted rotation can be run again.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from cryptography.fernet import Fernet, InvalidToken
from django.apps import apps
from django.db import connection, transaction
from encrypted_fields.fields import EncryptedFieldMixin

BATCH_ROWS = 200  # per transaction, so that other writers wait only briefly


@dataclass
class Rotation:
    """The result: numbers of values in encrypted fields."""

    values: int = 0
    reencrypted: int = 0  # values that were encrypted with a previous key
    undecryptable: list[str] = field(default_factory=list)  # no key matches: "table column primary-key"


def rotate() -> Rotation:
    """Re-encrypt all values that the current key can't decrypt."""
    rotation = Rotation()
    for column in encrypted_columns():
        while True:  # repeated after changes, because other processes may still write with the previous key
            reencrypted, values, undecryptable = _rotate_column(column)
            rotation.reencrypted += reencrypted
            if not reencrypted:
                break
        rotation.values += values
        rotation.undecryptable += undecryptable
    return rotation


def encrypted_columns() -> Iterator[Any]:
    """Yield every encrypted field of every model."""
    for model in apps.get_models(include_auto_created=True):
        yield from (column for column in model._meta.local_fields if isinstance(column, EncryptedFieldMixin))


def is_current(column: Any, encrypted: str) -> bool:
    """Return True if the value is encrypted with the current key."""
    try:
        Fernet(column.keys[0]).decrypt(encrypted.encode())
    except (InvalidToken, ValueError):
        return False
    return True


def encrypted_values(column: Any) -> Iterator[tuple[Any, str]]:
    """Yield the primary key and the encrypted value of each row."""
    table, pk, name = _quoted(column)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {pk}, {name} FROM {table} WHERE {name} IS NOT NULL")  # noqa: S608
        yield from cursor.fetchall()


def _quoted(column: Any) -> list[str]:
    """Return the names of the table, its primary key and the column, quoted for SQL."""
    meta = column.model._meta
    return [connection.ops.quote_name(name) for name in (meta.db_table, meta.pk.column, column.column)]


def _rotate_column(column: Any) -> tuple[int, int, list[str]]:
    """Process every value once. Return the number re-encrypted, the number of values, and those no key decrypts."""
    values = list(encrypted_values(column))
    old = [(pk, encrypted) for pk, encrypted in values if not is_current(column, encrypted)]
    reencrypted, undecryptable = 0, []
    for at in range(0, len(old), BATCH_ROWS):
        with transaction.atomic():
            for pk, encrypted in old[at : at + BATCH_ROWS]:
                plain = _decrypt(column, encrypted)
                if plain is None:
                    undecryptable.append(f"{column.model._meta.db_table} {column.column} {pk}")
                else:
                    reencrypted += _replace(column, pk, encrypted, plain)
    return reencrypted, len(values), undecryptable


def _decrypt(column: Any, encrypted: str) -> bytes | None:
    for key in column.keys:
        try:
            return Fernet(key).decrypt(encrypted.encode())
        except (InvalidToken, ValueError):
            continue
    return None


def _replace(column: Any, pk: Any, encrypted: str, plain: bytes) -> int:
    """Encrypt and store the value unless it has changed in the meantime. Return the number of changed rows."""
    table, key, name = _quoted(column)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {table} SET {name} = %s WHERE {key} = %s AND {name} = %s",  # noqa: S608
            [Fernet(column.keys[0]).encrypt(plain).decode(), pk, encrypted],
        )
        return int(cursor.rowcount)
