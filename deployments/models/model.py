"""Registered models."""

from django.db import models

from deployments.models.mirrored import Mirrored


class RegisteredModel(Mirrored):
    """Version of a model registered at the MMS; called "model" in URLs and pages."""

    name = models.CharField(max_length=255)
    version = models.PositiveIntegerField(null=True, blank=True)
    url = models.TextField()
    tags = models.JSONField(default=list, blank=True)
    mime_type = models.CharField(max_length=200, blank=True, default="")
    unpack = models.BooleanField(default=False)

    class Meta(Mirrored.Meta):
        indexes = [
            *Mirrored.Meta.indexes,
            models.Index(fields=["account", "vanished_at", "name", "-version"], name="model_name"),
        ]

    def __str__(self) -> str:
        return f"{self.name} v{self.version}" if self.version else self.name
