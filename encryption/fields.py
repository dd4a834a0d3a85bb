"""Encrypted model fields. A value that can't be decrypted raises UndecryptableError only when it is read.

So rows with such a value can be listed, and their other fields changed. Saving the row stores the encrypted value
unchanged.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import encrypted_fields.fields
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.db.models.query_utils import DeferredAttribute

from encryption.keys import derived_keys


class UndecryptableError(Exception):
    """A stored secret can't be decrypted with SECRET_KEY or SECRET_KEY_FALLBACKS. The message is for users."""


class KeyMissingError(ImproperlyConfigured):
    """The file with the key is missing, so nothing can be encrypted."""


@dataclass(frozen=True)
class Undecryptable:
    """An encrypted value that can't be decrypted with any key."""

    encrypted: str

    def __repr__(self) -> str:
        return "<undecryptable>"


class SecretAttribute(DeferredAttribute):
    """The attribute of a row. Reading it raises UndecryptableError if the value can't be decrypted."""

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        field: Any = self.field
        if field.attname not in instance.__dict__:  # deferred
            rows = type(instance)._base_manager.filter(pk=instance.pk)
            instance.__dict__[field.attname] = rows.values_list(field.attname, flat=True).get()
        value = instance.__dict__[field.attname]
        if isinstance(value, Undecryptable):
            raise UndecryptableError(
                f"The saved {field.verbose_name} of “{instance}” can't be decrypted with this site's secret key. "
                "An operator must restore the key or enter the value again."
            )
        return value

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__[self.field.attname] = value


if TYPE_CHECKING:
    Base: TypeAlias = models.TextField[Any, Any]
else:
    Base = encrypted_fields.fields.EncryptedTextField


class EncryptedTextField(Base):
    """Text that is encrypted in the database."""

    descriptor_class = SecretAttribute

    @property
    def keys(self) -> list[bytes]:
        """Return the derived keys, the current one first."""
        return derived_keys()

    @property
    def f(self) -> MultiFernet:
        """Return the cipher."""
        return MultiFernet([Fernet(key) for key in self.keys])

    def deconstruct(self) -> Any:
        """Return the library's class for migrations, which don't need ours."""
        name, _, args, options = super().deconstruct()
        return name, "encrypted_fields.fields.EncryptedTextField", args, options

    def decrypt(self, encrypted: str) -> "str | Undecryptable":
        """Return the decrypted value."""
        try:
            return self.f.decrypt(encrypted.encode()).decode()
        except (InvalidToken, ValueError):
            return Undecryptable(encrypted)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """Return the decrypted value."""
        return self.decrypt(value) if isinstance(value, str) and value else value

    def to_python(self, value: Any) -> Any:
        """Return the value as it is. Values that weren't loaded from the database aren't encrypted."""
        return models.TextField.to_python(self, value)

    def clean(self, value: Any, model_instance: Any) -> Any:
        """Validate the value. The library's method disables decryption in all threads while it runs."""
        return models.TextField.clean(self, value, model_instance)

    def pre_save(self, model_instance: Any, add: bool) -> Any:
        """Return the value to store."""
        value = model_instance.__dict__.get(self.attname)
        return value if isinstance(value, Undecryptable) else super().pre_save(model_instance, add)

    def get_prep_value(self, value: Any) -> Any:
        """Encrypt the value. One that couldn't be decrypted stays as it is."""
        if isinstance(value, Undecryptable):
            return value.encrypted
        if value and settings.SECRET_KEY_IS_MISSING:
            raise KeyMissingError("The file with the secret key is missing, so no secret can be stored.")
        return super().get_prep_value(value)


def has_value(row: models.Model, name: str) -> bool:
    """Return True if the row has a value in this encrypted field, even one that can't be decrypted."""
    return bool(stored(row, name))


def is_undecryptable(row: models.Model, name: str) -> bool:
    """Return True if the row's value in this encrypted field can't be decrypted."""
    try:
        getattr(row, name)
    except UndecryptableError:
        return True
    return False


def readable(row: models.Model, name: str) -> str | None:
    """Return the row's value in this encrypted field; None if it has none, or one that can't be decrypted."""
    return None if is_undecryptable(row, name) else getattr(row, name)


def stored(row: models.Model, name: str) -> str | None:
    """Return the row's value in this encrypted field, encrypted if it can't be decrypted, for comparison only."""
    value: str | None = row.__dict__[name].encrypted if is_undecryptable(row, name) else getattr(row, name)
    return value
