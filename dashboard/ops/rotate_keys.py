"""Re-encryption of every stored secret with the current SECRET_KEY, so that the previous one can be removed.

All encrypted fields of all models are included automatically. A value is replaced only if it is still the one that was
read, so the site can stay in use. An interrupted rotation can be run again.
"""

from dataclasses import dataclass, field
from typing import Any

from cryptography.fernet import Fernet, InvalidToken
from django.db import connection, transaction

from dashboard.files.models import FormerFileKey
from encryption.check import encrypted_columns, encrypted_values, quoted, record_current_key

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
    if not rotation.undecryptable:
        record_current_key()
    return rotation


def discard_lost() -> list[str]:
    """Delete all values that can't be decrypted with any key. Return what to do about each.

    Second factors aren't deleted: their users could then sign in with only a password.
    """
    lost = []
    for column in encrypted_columns():
        of, name = column.model, column.attname
        for pk, encrypted in list(encrypted_values(column)):
            if _decrypt(column, encrypted) is not None:
                continue
            lost.append(f"{of._meta.db_table} {column.column} {pk}")
            if column.null:
                of._default_manager.filter(pk=pk).update(**{name: None})
            elif of is FormerFileKey:
                of._default_manager.filter(pk=pk).delete()
    record_current_key()
    return lost


def is_current(column: Any, encrypted: str) -> bool:
    """Return True if the value is encrypted with the current key."""
    try:
        Fernet(column.keys[0]).decrypt(encrypted.encode())
    except (InvalidToken, ValueError):
        return False
    return True


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
    table, key, name = quoted(column)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {table} SET {name} = %s WHERE {key} = %s AND {name} = %s",  # noqa: S608
            [Fernet(column.keys[0]).encrypt(plain).decode(), pk, encrypted],
        )
        return int(cursor.rowcount)
