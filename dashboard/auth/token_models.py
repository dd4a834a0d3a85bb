"""Tokens for the JSON API, and the people and machines that have them."""

from datetime import datetime

from django.conf import settings
from django.db import models
from django.utils import timezone


class Machine(models.Model):
    """Says of a person that it is a program: it has no password, cannot sign in, and works with tokens alone."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, primary_key=True, on_delete=models.CASCADE, related_name="machine"
    )

    def __str__(self) -> str:
        return str(self.user)


class ApiToken(models.Model):
    """A bearer token of the JSON API: it may do what its owner may, within its scope and its account."""

    class Scope(models.TextChoices):
        READ = "read", "Read"
        WRITE = "write", "Read and write"

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=100, help_text="What it is for.")
    digest = models.CharField(max_length=64, unique=True, help_text="SHA-256; the token itself is kept nowhere.")
    scope = models.CharField(max_length=8, choices=Scope.choices)
    # No foreign key: tables of another package are referred to by id. None: every account that the owner may see.
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

    def why_dead(self, now: datetime | None = None) -> str:
        """Why it opens nothing, as the end of “This token …”; "" while it is good."""
        if self.revoked_at:
            return f"was revoked on {self.revoked_at:%Y-%m-%d}"
        if self.expires_at <= (now or timezone.now()):
            return f"expired on {self.expires_at:%Y-%m-%d}"
        return "" if self.owner.is_active else "belongs to a deactivated user"


class SentOnce(models.Model):
    """What an Idempotency-Key was used for, so that the same request sent again gets the same operation."""

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
