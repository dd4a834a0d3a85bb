"""Table of the audit log."""

from datetime import datetime
from typing import Any

from django.db import connections, models, transaction
from django.utils import timezone

# While this table has a row, the triggers allow deleting entries written before its time.
PRUNING_TABLE = "dashboard_auditpruning"
START_PRUNING = "INSERT INTO dashboard_auditpruning (before) VALUES (%s)"
END_PRUNING = "DELETE FROM dashboard_auditpruning WHERE before = %s"


class AppendOnly(models.QuerySet["AuditEntry"]):
    """Rows that can only be added and read. Retention alone deletes rows, by age."""

    def update(self, **fields: Any) -> int:
        raise NotImplementedError("Audit entries can't be changed.")

    def delete(self) -> tuple[int, dict[str, int]]:
        raise NotImplementedError("Audit entries can't be deleted. Retention removes them by age.")

    def delete_before(self, before: datetime) -> int:
        """Delete the entries written before that time and return their number."""
        connection = connections[self.db]
        with transaction.atomic(using=self.db), connection.cursor() as cursor:
            value = connection.ops.adapt_datetimefield_value(before)
            cursor.execute(START_PRUNING, [value])
            deleted: int = self.filter(at__lt=before)._raw_delete(self.db)
            cursor.execute(END_PRUNING, [value])
        return deleted


class AuditEntry(models.Model):
    """One change or sign-in. Database triggers reject updates, replacements and deletions of existing rows."""

    class Result(models.TextChoices):
        """Outcome of an audited request."""

        DONE = "done", "Done"
        REFUSED = "refused", "Refused"
        FAILED = "failed", "Failed"

    at = models.DateTimeField(default=timezone.now, db_index=True)
    actor = models.CharField(
        max_length=150, blank=True, help_text="User name, which remains after the user is deleted."
    )
    via = models.CharField(max_length=16, default="page", help_text="page, api, mms, command, provider or system.")
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
            raise NotImplementedError("Audit entries can't be changed.")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        raise NotImplementedError("Audit entries can't be deleted. Retention removes them by age.")
