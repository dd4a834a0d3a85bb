"""Encrypt every stored secret anew with the present SECRET_KEY, so that an earlier one may go.

Whoever adds an EncryptedTextField need not think of this: the tables are found by asking Django for all of them. Each
value is replaced only where it is still the one that was read, so a site that runs meanwhile loses nothing; and a
rotation that is killed is just run again.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from cryptography.fernet import Fernet, InvalidToken
from django.apps import apps
from django.db import connection, transaction
from encrypted_fields.fields import EncryptedFieldMixin

BATCH = 200  # rows that are changed in one transaction: nobody who writes waits for long


@dataclass
class Rotation:
    """What became of the values of all encrypted fields."""

    values: int = 0  # there are
    renewed: int = 0  # were encrypted with an earlier key, and are with the present one now
    lost: list[str] = field(default_factory=list)  # no key opens them: "table column primary key"


def rotate() -> Rotation:
    """Go through all tables until nothing is left that the present key does not open."""
    rotation = Rotation()
    for column in encrypted_columns():
        while True:  # again after a pass with changes: others may have written with the earlier key meanwhile
            renewed, values, lost = _pass(column)
            rotation.renewed += renewed
            if not renewed:
                break
        rotation.values += values
        rotation.lost += lost
    return rotation


def encrypted_columns() -> Iterator[Any]:
    """Every encrypted field of every table of every app."""
    for model in apps.get_models(include_auto_created=True):
        yield from (column for column in model._meta.local_fields if isinstance(column, EncryptedFieldMixin))


def opens(column: Any, sealed: str) -> bool:
    """Whether the present key, and not only an earlier one, opens the value."""
    try:
        Fernet(column.keys[0]).decrypt(sealed.encode())
    except (InvalidToken, ValueError):
        return False
    return True


def sealed_values(column: Any) -> Iterator[tuple[Any, str]]:
    """Primary keys and the values as they are stored."""
    table, pk, name = _quoted(column)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {pk}, {name} FROM {table} WHERE {name} IS NOT NULL")  # noqa: S608
        yield from cursor.fetchall()


def _quoted(column: Any) -> list[str]:
    """The table, its primary key and the column, as SQL writes them."""
    about = column.model._meta
    return [connection.ops.quote_name(name) for name in (about.db_table, about.pk.column, column.column)]


def _pass(column: Any) -> tuple[int, int, list[str]]:
    """Look at every value once: how many were renewed, how many there are, and which no key opens."""
    found = list(sealed_values(column))
    old = [(pk, sealed) for pk, sealed in found if not opens(column, sealed)]
    renewed, lost = 0, []
    for at in range(0, len(old), BATCH):
        with transaction.atomic():
            for pk, sealed in old[at : at + BATCH]:
                plain = _open(column, sealed)
                if plain is None:
                    lost.append(f"{column.model._meta.db_table} {column.column} {pk}")
                else:
                    renewed += _replace(column, pk, sealed, plain)
    return renewed, len(found), lost


def _open(column: Any, sealed: str) -> bytes | None:
    for key in column.keys:
        try:
            return Fernet(key).decrypt(sealed.encode())
        except (InvalidToken, ValueError):
            continue
    return None


def _replace(column: Any, pk: Any, sealed: str, plain: bytes) -> int:
    """Write the value anew unless somebody else has written another one since; how many rows that were."""
    table, key, name = _quoted(column)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {table} SET {name} = %s WHERE {key} = %s AND {name} = %s",  # noqa: S608
            [Fernet(column.keys[0]).encrypt(plain).decode(), pk, sealed],
        )
        return int(cursor.rowcount)
