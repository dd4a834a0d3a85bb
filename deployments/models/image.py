"""Images."""

from django.db import models

from deployments.models.account import RegistryInfo
from deployments.models.manifest import Manifest
from deployments.models.mirrored import Mirrored


class Image(Mirrored):
    """Image built from a manifest."""

    manifest = models.ForeignKey(Manifest, null=True, blank=True, on_delete=models.SET_NULL, related_name="images")
    registry = models.ForeignKey(RegistryInfo, null=True, blank=True, on_delete=models.SET_NULL, related_name="images")
    image_type = models.CharField(max_length=32, default="Docker")
    registry_location = models.CharField(max_length=400, blank=True, default="")
    registry_user = models.CharField(max_length=200, blank=True, default="")
    digest = models.CharField(max_length=100, blank=True, default="", help_text="Empty: not reported.")

    class Meta(Mirrored.Meta):
        pass

    def __str__(self) -> str:
        return self.description or f"image {self.pk}"
