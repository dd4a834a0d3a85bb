"""Assets."""

from django.db import models

from deployments.models.account import HostingAccount


class Asset(models.Model):
    """File for manifests, such as a driver script or a schema. The server learns of it when a manifest includes it."""

    account = models.ForeignKey(HostingAccount, on_delete=models.CASCADE, related_name="assets")
    name = models.CharField(max_length=32, help_text="The asset's id in manifests.")
    url = models.TextField()
    mime_type = models.CharField(max_length=200, default="application/octet-stream")
    unpack = models.BooleanField(default=False)
    created_by = models.CharField(max_length=150, blank=True, default="")
    added_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-added_at", "-pk"]
        indexes = [models.Index(fields=["account", "name"], name="asset_name")]

    def __str__(self) -> str:
        return self.name
