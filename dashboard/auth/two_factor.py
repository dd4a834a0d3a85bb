"""The optional second factor: codes of an authenticator app (RFC 6238), and recovery codes for when it is lost.

For people with a password here; whoever comes from the identity provider has shown there who they are.
"""

import base64
import hashlib
import hmac
import secrets
import time
from typing import Any

import segno
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP
from django.conf import settings
from django.db import transaction

from dashboard.models import RecoveryCode, SecondFactor

DIGITS, STEP = 6, 30  # what every app takes
LATE = 1  # steps that a clock may be off
RECOVERY_CODES = 10
ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


def is_on(user: Any) -> bool:
    return SecondFactor.objects.filter(user=user, confirmed=True).exists()


def offered(user: Any, anew: bool = True) -> SecondFactor:
    """The factor that `user` is about to switch on: nothing asks for it before its first right code.

    Each page that shows one shows a new one: whoever saw an earlier one, with a stolen password, knows nothing.
    """
    if anew:
        SecondFactor.objects.filter(user=user, confirmed=False).delete()
    return SecondFactor.objects.get_or_create(user=user, defaults={"secret": _new_secret()})[0]


def switch_on(factor: SecondFactor, code: str) -> list[str]:
    """Ask for it from now on, if the app shows `code` now; returns the recovery codes, which are shown this once.

    None where the code is not right, or the factor was replaced by another meanwhile.
    """
    with transaction.atomic():
        if not takes(factor, code) or not SecondFactor.objects.filter(pk=factor.pk).update(confirmed=True):
            return []
        return new_recovery_codes(factor.user)


def switch_off(user: Any) -> bool:
    """Take factor and recovery codes away; whether there was one."""
    with transaction.atomic():
        RecoveryCode.objects.filter(user=user).delete()
        return bool(SecondFactor.objects.filter(user=user).delete()[0])


def new_recovery_codes(user: Any) -> list[str]:
    """Ten new ones; those before are void."""
    codes = ["".join(secrets.choice(ALPHABET) for _ in range(16)) for _ in range(RECOVERY_CODES)]
    with transaction.atomic():
        RecoveryCode.objects.filter(user=user).delete()
        RecoveryCode.objects.bulk_create(RecoveryCode(user=user, digest=_digest(user, code)) for code in codes)
    return ["-".join(code[at : at + 4] for at in range(0, 16, 4)) for code in codes]


def takes(factor: SecondFactor, code: str) -> bool:
    """Whether the app shows `code` now. True once for each code."""
    code, now = _plain(code), int(time.time()) // STEP
    if not (len(code) == DIGITS and code.isascii() and code.isdecimal()):
        return False
    factors = SecondFactor.objects.filter(pk=factor.pk)
    return any(
        hmac.compare_digest(code_of(factor.secret, step), code)
        and factors.filter(last_step__lt=step).update(last_step=step)
        for step in range(now - LATE, now + LATE + 1)
    )


def takes_either(user: Any, code: str) -> bool:
    """Whether `code` is one of the app, or a recovery code, which is used up by that."""
    factor = SecondFactor.objects.filter(user=user, confirmed=True).first()
    if factor is None:
        return False
    return takes(factor, code) or bool(RecoveryCode.objects.filter(user=user, digest=_digest(user, code)).delete()[0])


def code_of(secret: str, step: int) -> str:
    """What an app with that secret shows during the step."""
    key = base64.b32decode(secret)
    return TOTP(key, DIGITS, SHA1(), STEP, enforce_key_length=True).generate(step * STEP).decode()  # noqa: S303


def picture(factor: SecondFactor) -> str:
    """The QR code that an app reads, as the `src` of an image."""
    totp = TOTP(base64.b32decode(factor.secret), DIGITS, SHA1(), STEP)  # noqa: S303 - what apps know
    site = settings.SITE_URL.partition("://")[2]
    uri = totp.get_provisioning_uri(factor.user.get_username(), f"Model Management {site}".replace(":", " "))
    source: str = segno.make(uri, error="m").svg_data_uri(scale=4, light="#fff", dark="#000", border=3)
    return source


def _new_secret() -> str:
    return base64.b32encode(secrets.token_bytes(20)).decode()


def _plain(code: str) -> str:
    return "".join(code.split()).replace("-", "").lower()


def _digest(user: Any, code: str) -> str:
    """79 bits of chance need neither a slow hash nor a key, and so outlive a change of SECRET_KEY."""
    return hashlib.sha256(f"recovery code of {user.pk}: {_plain(code)}".encode()).hexdigest()
