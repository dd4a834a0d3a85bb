"""Table of former file keys."""

from django.db import models

from encryption.fields import EncryptedTextField


class FormerFileKey(models.Model):
    """A key that authorized downloads under an earlier SECRET_KEY.

    Models stay registered under URLs that were signed with it. The key gives access to uploaded files only, and the
    SECRET_KEY can't be recovered from it.
    """

    key = EncryptedTextField()
    added_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"former file key of {self.added_at:%Y-%m-%d}"
