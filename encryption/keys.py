"""Keys derived from SECRET_KEY and SECRET_KEY_FALLBACKS, and their fingerprints."""

import base64
import hashlib
import hmac
from functools import lru_cache

from django.conf import settings

ITERATIONS = 100_000  # as in encrypted_fields, which earlier releases used to encrypt


def derived_keys() -> list[bytes]:
    """Return the keys for encryption: the current one, then those for reading only."""
    return [_derived(key, settings.SALT_KEY) for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)]


def fingerprint(key: bytes) -> str:
    """Return the fingerprint of a key for encryption."""
    return hmac.new(key, b"fingerprint of the key for encryption", hashlib.sha256).hexdigest()[:32]


@lru_cache(maxsize=32)
def _derived(secret_key: str, salt: str) -> bytes:
    return base64.urlsafe_b64encode(hashlib.pbkdf2_hmac("sha256", secret_key.encode(), salt.encode(), ITERATIONS))
