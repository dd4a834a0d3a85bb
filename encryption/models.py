"""Table of the secret key's fingerprint."""

from django.db import models


class KeyFingerprint(models.Model):
    """Fingerprint of the key that the database's secrets are encrypted with. There is at most one row.

    It is derived like the key for encryption, so it reveals neither that key nor SECRET_KEY.
    """

    ONLY = 1  # primary key

    fingerprint = models.CharField(max_length=64)
    recorded_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return self.fingerprint
