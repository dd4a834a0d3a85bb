"""Common fields of rows that mirror a resource of the MMS."""

from django.db import models

from deployments.models.account import HostingAccount


class Mirrored(models.Model):
    """Resource of the MMS as last seen. `mms_id` is null until the server has assigned an id."""

    account = models.ForeignKey(HostingAccount, on_delete=models.CASCADE, related_name="+")
    mms_id = models.CharField(max_length=200, null=True, blank=True)  # noqa: DJ001 - unknown is not ""
    description = models.CharField(max_length=512, blank=True, default="")
    created_by = models.CharField(
        max_length=150, blank=True, default="", help_text="Empty if created outside the dashboard."
    )
    created_at = models.DateTimeField(null=True, blank=True, help_text="As reported by the server.")
    added_at = models.DateTimeField(auto_now_add=True)
    seen_at = models.DateTimeField(null=True, blank=True, help_text="Time when the server last listed it.")
    vanished_at = models.DateTimeField(null=True, blank=True, help_text="The server no longer lists it.")

    class Meta:
        abstract = True
        ordering = ["-added_at", "-pk"]
        constraints = [models.UniqueConstraint(fields=["account", "mms_id"], name="%(class)s_mms_id")]
        indexes = [
            models.Index(fields=["account", "-added_at"], name="%(class)s_newest"),
            # For lists of present rows, newest first, and their count: the last of 4,000 pages in 6 ms instead of 75.
            models.Index(fields=["account", "vanished_at", "-added_at", "-id"], name="%(class)s_present"),
        ]
