"""Tables of authentication: sessions, login attempts, provider identities, second factors and API tokens."""

from datetime import datetime

from django.conf import settings
from django.contrib.sessions.base_session import AbstractBaseSession
from django.db import models
from django.utils import timezone

from encryption.fields import EncryptedTextField


class OpenSession(AbstractBaseSession):
    """A session with its owner, so that sessions can be listed and ended."""

    user_id = models.BigIntegerField(null=True, blank=True, db_index=True, help_text="None before sign-in.")
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField()
    address = models.CharField(max_length=64, blank=True)
    browser = models.CharField(max_length=120, blank=True)

    class Meta:
        ordering = ["-seen_at"]

    def __str__(self) -> str:
        return f"session of user {self.user_id} from {self.address}"


class SignInTry(models.Model):
    """A login attempt that failed or is still in progress.

    Names are stored as keyed hashes, because people sometimes type their password in the name field.
    """

    at = models.DateTimeField(db_index=True)
    name_key = models.CharField(max_length=64)
    place = models.CharField(
        max_length=80, help_text="Address, or the browser if the user has signed in with it before."
    )
    known = models.BooleanField(help_text="True if the user has signed in with this browser before.")

    class Meta:
        indexes = [models.Index(fields=["name_key", "at"]), models.Index(fields=["place", "at"])]

    def __str__(self) -> str:
        return f"login attempt from {self.place}"


class Identity(models.Model):
    """The identity of a user at the identity provider. Accounts are matched by this row alone."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="identity")
    issuer = models.CharField(max_length=200)
    subject = models.CharField(max_length=255)
    administrator = models.BooleanField(
        default=False, help_text="Administrator because of a group at the identity provider."
    )

    class Meta:
        verbose_name_plural = "identities"
        constraints = [models.UniqueConstraint(fields=["issuer", "subject"], name="one_person_per_subject")]

    def __str__(self) -> str:
        return f"{self.subject} at {self.issuer}"


class SecondFactor(models.Model):
    """The TOTP secret shared with a user's authenticator app."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="second_factor")
    secret = EncryptedTextField(help_text="Base32.")
    confirmed = models.BooleanField(default=False, help_text="Required only after the first valid code of the app.")
    made_at = models.DateTimeField(auto_now_add=True)
    last_step = models.BigIntegerField(default=0, help_text="Time step of the last used code; codes can't be reused.")

    def __str__(self) -> str:
        return f"second factor of {self.user}"


class RecoveryCode(models.Model):
    """A single-use code that replaces the authenticator app. Its row is deleted when it is used."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="recovery_codes")
    digest = models.CharField(max_length=64)

    def __str__(self) -> str:
        return f"recovery code of {self.user}"


class Machine(models.Model):
    """Marks a user as a service account: it has no password, can't sign in, and uses API tokens only."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, primary_key=True, on_delete=models.CASCADE, related_name="machine"
    )

    def __str__(self) -> str:
        return str(self.user)


class ApiToken(models.Model):
    """A bearer token of the JSON API. It grants its owner's permissions, limited by its scope and account."""

    class Scope(models.TextChoices):
        """The kinds of requests that a token allows."""

        READ = "read", "Read"
        WRITE = "write", "Read and write"

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=100, help_text="Purpose of the token.")
    digest = models.CharField(max_length=64, unique=True, help_text="SHA-256 digest; the token itself isn't stored.")
    scope = models.CharField(max_length=8, choices=Scope.choices)
    # No foreign key: tables of other packages are referenced by id. None: every account that the owner can see.
    account_id = models.BigIntegerField(null=True, blank=True, db_index=True)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    last_used_from = models.CharField(max_length=64, blank=True, default="")

    class Meta:
        ordering = ["-created_at", "-pk"]

    def __str__(self) -> str:
        return self.name

    def inactive_reason(self, now: datetime | None = None) -> str:
        """Return why the token doesn't work, as the end of "This token ...", or "" if it works."""
        if self.revoked_at:
            return f"was revoked on {self.revoked_at:%Y-%m-%d}"
        if self.expires_at <= (now or timezone.now()):
            return f"expired on {self.expires_at:%Y-%m-%d}"
        return "" if self.owner.is_active else "belongs to a deactivated user"


class SentOnce(models.Model):
    """The operation created for an Idempotency-Key. A repeated request gets the same operation."""

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    account_id = models.BigIntegerField()
    key = models.CharField(max_length=200)
    body_digest = models.CharField(max_length=64)
    operation_id = models.UUIDField()
    sent_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["owner", "account_id", "key"], name="one_request_per_key")]

    def __str__(self) -> str:
        return self.key
