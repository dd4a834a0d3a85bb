"""Who may do what in which hosting account, and who did what."""

from typing import Any

from django.conf import settings
from django.db import models
from django.utils import timezone
from encrypted_fields.fields import EncryptedTextField

from dashboard.auth.models import Identity, OpenSession, RecoveryCode, SecondFactor, SignInTry
from dashboard.auth.token_models import ApiToken, Machine, SentOnce

__all__ = [
    "ApiToken",
    "AppendOnly",
    "AuditEntry",
    "Identity",
    "Machine",
    "Membership",
    "OpenSession",
    "RecoveryCode",
    "Role",
    "SecondFactor",
    "SentOnce",
    "SignInTry",
    "Source",
]


class Role(models.TextChoices):
    """Roles in a hosting account, weakest first. A site administrator is a superuser and needs none."""

    VIEWER = "viewer", "Viewer"
    SCIENTIST = "scientist", "Data scientist"
    OPERATOR = "operator", "Operator"


class Source(models.TextChoices):
    """Where a role was given. One of the provider goes with the group there; one of the site stays until taken here."""

    SITE = "site", "Given here"
    PROVIDER = "provider", "From a group of the identity provider"


class Membership(models.Model):
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    # No foreign key: tables of another package are referred to by id.
    account_id = models.BigIntegerField(db_index=True)
    role = models.CharField(max_length=16, choices=Role.choices)
    source = models.CharField(max_length=16, choices=Source.choices, default=Source.SITE)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "account_id"], name="one_role_per_account")]

    def __str__(self) -> str:
        return f"{self.user} is {self.role}"


class AppendOnly(models.QuerySet):
    """Rows that can be added and read. Only retention takes away what is older than the stated time."""

    def update(self, **fields: Any) -> int:
        raise NotImplementedError("An audit entry is never changed.")

    def delete(self) -> tuple[int, dict[str, int]]:
        raise NotImplementedError("An audit entry is never deleted by hand.")

    def forget(self, before: Any) -> int:
        """Delete what was written before that time; how many there were."""
        return self.filter(at__lt=before)._raw_delete(self.db)


class AuditEntry(models.Model):
    """One change or sign-in. A trigger in the database refuses to change a row, whoever asks."""

    class Result(models.TextChoices):
        DONE = "done", "Done"
        REFUSED = "refused", "Refused"
        FAILED = "failed", "Failed"

    at = models.DateTimeField(default=timezone.now, db_index=True)
    actor = models.CharField(max_length=150, blank=True, help_text="By name, so that it stays when the person goes.")
    via = models.CharField(max_length=16, default="page", help_text="page, api, command, provider or system.")
    action = models.CharField(max_length=64, db_index=True)
    account_id = models.BigIntegerField(null=True, blank=True, db_index=True)
    account_name = models.CharField(max_length=64, blank=True)
    target = models.CharField(max_length=300, blank=True)
    address = models.CharField(max_length=64, blank=True)
    result = models.CharField(max_length=16, choices=Result.choices)
    before = models.JSONField(null=True, blank=True)
    after = models.JSONField(null=True, blank=True)

    objects = AppendOnly.as_manager()

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"{self.actor or 'nobody'}: {self.action} {self.target}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self.pk is not None:
            raise NotImplementedError("An audit entry is never changed.")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        raise NotImplementedError("An audit entry is never deleted by hand.")


class FormerFileKey(models.Model):
    """What opened uploads under an earlier SECRET_KEY: models stay registered by addresses that were made with it.

    It opens files and nothing else; the SECRET_KEY that it was made from cannot be found out from it.
    """

    key = EncryptedTextField()
    added_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"file key kept at {self.added_at:%Y-%m-%d}"
