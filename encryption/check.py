"""Check that the site has the key that the secrets in its database are encrypted with."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet, InvalidToken
from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from encrypted_fields.fields import EncryptedFieldMixin

from encryption.fields import Undecryptable
from encryption.keys import derived_keys, fingerprint
from encryption.models import KeyFingerprint

SAMPLES = 20  # values of each column to try, if no fingerprint is recorded


def key_problem() -> str:
    """Return why the secrets in the database can't be decrypted, and what to do; "" if they can. Uses the database."""
    recorded = recorded_fingerprint()
    if not settings.SECRET_KEY_IS_MISSING and (recorded in _fingerprints() if recorded else _can_decrypt()):
        return ""
    if settings.SECRET_KEY_IS_MISSING and not recorded and _can_decrypt():
        return ""  # nothing is encrypted yet
    path = key_path()
    if settings.SECRET_KEY_IS_MISSING:
        reason = f"The secret key file {path} is missing, but the database contains secrets encrypted with it."
    else:
        source = "SECRET_KEY" if not _is_key_from_file() else f"The secret key in {path}"
        reason = f"{source} isn't the key that the secrets in the database are encrypted with."
    return (
        f"{reason} Restore the key from a backup (tar -xOf BACKUP secret_key), or set SECRET_KEY to its "
        "previous value. If you changed the key, set SECRET_KEY_FALLBACKS to the previous one. If that "
        f'key is lost, run "{settings.COMMAND} rotate_keys --discard-lost" and enter the secrets again.'
    )


def require_key() -> None:
    """Raise ImproperlyConfigured if the site doesn't have the right key. A key created just now is removed again."""
    if problem := key_problem():
        withdraw_new_key()
        raise ImproperlyConfigured(problem)


def ensure_recorded() -> None:
    """Record the fingerprint if the database has none, after `require_key`: on the first start and after an upgrade.

    While secrets are encrypted with a key of SECRET_KEY_FALLBACKS, this is the one that is recorded.
    """
    if settings.SECRET_KEY_IS_MISSING:
        save_new_key()
    if recorded_fingerprint() is None:
        sample = next(_values(), None)
        keys = [key for key in derived_keys() if sample is None or _opens(key, sample[1])]
        _record(keys[0] if keys else derived_keys()[0])


def record_current_key() -> None:
    """Record the fingerprint of SECRET_KEY: every secret is encrypted with it now."""
    _record(derived_keys()[0])


def recorded_fingerprint() -> str | None:
    """Return the recorded fingerprint, or None."""
    return KeyFingerprint.objects.values_list("fingerprint", flat=True).first()


def key_path() -> Path:
    """Return the path of the file that has the key if the environment doesn't."""
    return Path(settings.DATA_DIR, "secret_key")


def save_new_key() -> None:
    """Store the new key of a site whose key file is missing. Raises FileExistsError."""
    with key_path().open("x") as file:
        key_path().chmod(0o600)
        file.write(settings.SECRET_KEY)
    settings.SECRET_KEY_IS_MISSING = False


def withdraw_new_key() -> None:
    """Delete the key file if this process created it: another key is needed there."""
    if settings.SECRET_KEY_IS_NEW and _is_key_from_file():
        key_path().unlink()


def encrypted_columns() -> Iterator[Any]:
    """Yield every encrypted field of every model."""
    for model in apps.get_models(include_auto_created=True):
        yield from (column for column in model._meta.local_fields if isinstance(column, EncryptedFieldMixin))


def encrypted_values(column: Any, limit: int | None = None) -> Iterator[tuple[Any, str]]:
    """Yield the primary key and the encrypted value of each row, or of at most `limit` rows."""
    table, pk, name = quoted(column)
    at_most = f" LIMIT {limit:d}" if limit else ""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {pk}, {name} FROM {table} WHERE {name} IS NOT NULL{at_most}")  # noqa: S608
        yield from cursor.fetchall()


def quoted(column: Any) -> list[str]:
    """Return the names of the table, its primary key and the column, quoted for SQL."""
    meta = column.model._meta
    return [connection.ops.quote_name(name) for name in (meta.db_table, meta.pk.column, column.column)]


def _values() -> Iterator[tuple[Any, str]]:
    for column in encrypted_columns():
        yield from ((column, encrypted) for _, encrypted in encrypted_values(column, SAMPLES))


def _can_decrypt() -> bool:
    """Return True if the database has no secrets, or at least one that can be decrypted."""
    is_empty = True
    for column, encrypted in _values():
        is_empty = False
        if not isinstance(column.decrypt(encrypted), Undecryptable):
            return True
    return is_empty


def _opens(key: bytes, encrypted: str) -> bool:
    try:
        Fernet(key).decrypt(encrypted.encode())
    except (InvalidToken, ValueError):
        return False
    return True


def _fingerprints() -> list[str]:
    return [fingerprint(key) for key in derived_keys()]


def _record(key: bytes) -> None:
    KeyFingerprint.objects.update_or_create(pk=KeyFingerprint.ONLY, defaults={"fingerprint": fingerprint(key)})


def _is_key_from_file() -> bool:
    path = key_path()
    return path.exists() and path.read_text().strip() == settings.SECRET_KEY
