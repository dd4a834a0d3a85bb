"""Two-factor authentication: codes of an authenticator app (RFC 6238) and recovery codes.

It applies to users with a password. The identity provider does its own for the users who sign in there.
"""

import base64
import hashlib
import hmac
import secrets
import time

from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP
from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction

from dashboard.auth.models import RecoveryCode, SecondFactor

DIGITS, STEP_SECONDS = 6, 30  # the algorithm and length that every app supports
MAX_CLOCK_STEPS = 1  # allowed clock difference, in steps
RECOVERY_CODES = 10
ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


def is_enabled(user: User) -> bool:
    """Return True if the user has two-factor authentication enabled."""
    return SecondFactor.objects.filter(user=user, confirmed=True).exists()


def pending_secret(user: User, renew: bool = True) -> SecondFactor:
    """Return the factor that the user is setting up. It isn't required before its first correct code.

    With `renew` the secret is new, as each page that shows it needs: someone with a stolen password may have seen an
    earlier one.
    """
    if renew:
        SecondFactor.objects.filter(user=user, confirmed=False).delete()
    return SecondFactor.objects.get_or_create(user=user, defaults={"secret": _new_secret()})[0]


def enable(factor: SecondFactor, code: str) -> list[str]:
    """Enable the factor if `code` is correct, and return the recovery codes, which are shown only once.

    Returns an empty list if the code is wrong or the factor was replaced in the meantime.
    """
    with transaction.atomic():
        if not verify_totp(factor, code) or not SecondFactor.objects.filter(pk=factor.pk).update(confirmed=True):
            return []
        return new_recovery_codes(factor.user)


def disable(user: User) -> bool:
    """Delete the factor and the recovery codes. Return True if there was a factor."""
    with transaction.atomic():
        RecoveryCode.objects.filter(user=user).delete()
        return bool(SecondFactor.objects.filter(user=user).delete()[0])


def new_recovery_codes(user: User) -> list[str]:
    """Return ten new recovery codes, which replace the existing ones."""
    codes = ["".join(secrets.choice(ALPHABET) for _ in range(16)) for _ in range(RECOVERY_CODES)]
    with transaction.atomic():
        RecoveryCode.objects.filter(user=user).delete()
        RecoveryCode.objects.bulk_create(RecoveryCode(user=user, digest=_digest(user, code)) for code in codes)
    return ["-".join(code[start : start + 4] for start in range(0, 16, 4)) for code in codes]


def verify_totp(factor: SecondFactor, code: str) -> bool:
    """Return True if the app shows `code` now, and mark it as used. Each code works once."""
    code, now = _normalized(code), int(time.time()) // STEP_SECONDS
    if not (len(code) == DIGITS and code.isascii() and code.isdecimal()):
        return False
    factors = SecondFactor.objects.filter(pk=factor.pk)
    return any(
        hmac.compare_digest(totp_code(factor.secret, step), code)
        and factors.filter(last_step__lt=step).update(last_step=step)
        for step in range(now - MAX_CLOCK_STEPS, now + MAX_CLOCK_STEPS + 1)
    )


def verify_code(user: User, code: str) -> bool:
    """Return True if `code` is a current code of the app or a recovery code, and mark it as used."""
    factor = SecondFactor.objects.filter(user=user, confirmed=True).first()
    if factor is None:
        return False
    if verify_totp(factor, code):
        return True
    return bool(RecoveryCode.objects.filter(user=user, digest=_digest(user, code)).delete()[0])


def totp_code(secret: str, step: int) -> str:
    """Return the code that an app with this secret shows during the step."""
    key = base64.b32decode(secret)
    return TOTP(key, DIGITS, SHA1(), STEP_SECONDS, enforce_key_length=True).generate(step * STEP_SECONDS).decode()  # noqa: S303


def qr_code(factor: SecondFactor) -> str:
    """Return the QR code for the authenticator app as the `src` of an image."""
    import segno  # only users who set up an app need it

    totp = TOTP(base64.b32decode(factor.secret), DIGITS, SHA1(), STEP_SECONDS)  # noqa: S303 - the algorithm that apps support
    site = settings.SITE_URL.partition("://")[2]
    uri = totp.get_provisioning_uri(factor.user.get_username(), f"Model Management {site}".replace(":", " "))
    source: str = segno.make(uri, error="m").svg_data_uri(scale=4, light="#fff", dark="#000", border=3)
    return source


def _new_secret() -> str:
    return base64.b32encode(secrets.token_bytes(20)).decode()


def _normalized(code: str) -> str:
    return "".join(code.split()).replace("-", "").lower()


def _digest(user: User, code: str) -> str:
    """Return a plain hash of the code. With 79 random bits it needs neither a slow hash nor SECRET_KEY."""
    return hashlib.sha256(f"recovery code of {user.pk}: {_normalized(code)}".encode()).hexdigest()
