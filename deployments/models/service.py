"""Services."""

from django.db import models

from deployments.models.account import Cluster
from deployments.models.image import Image
from deployments.models.mirrored import Mirrored
from encryption.fields import EncryptedTextField


class Service(Mirrored):
    """Web service that serves the models of an image."""

    name = models.CharField(max_length=255)
    image = models.ForeignKey(Image, null=True, blank=True, on_delete=models.SET_NULL, related_name="services")
    cluster = models.ForeignKey(Cluster, null=True, blank=True, on_delete=models.SET_NULL, related_name="services")
    updated_at = models.DateTimeField(null=True, blank=True, help_text="As reported by the server.")
    state = models.CharField(
        max_length=64, blank=True, default="", help_text="As reported by the server, such as Succeeded."
    )
    # Extensions of the bundled MMS; empty if the server doesn't report them.
    health = models.CharField(max_length=32, blank=True, default="")
    health_detail = models.TextField(blank=True, default="")
    limits = models.JSONField(default=dict, blank=True, help_text="Bytes of memory and temporary files, tasks, CPUs.")
    scoring_uri = models.TextField(blank=True, default="")
    scoring_key = EncryptedTextField(null=True, blank=True)
    revisions = models.JSONField(default=list, blank=True)

    class Meta(Mirrored.Meta):
        indexes = [*Mirrored.Meta.indexes, models.Index(fields=["account", "name"], name="service_name")]

    def __str__(self) -> str:
        return self.name
