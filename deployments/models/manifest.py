"""Manifests."""

from django.db import models as db

from deployments.models.asset import Asset
from deployments.models.mirrored import Mirrored
from deployments.models.model import RegisteredModel


class Manifest(Mirrored):
    """Models, driver script, assets and target runtime that an image is built from."""

    driver_program = db.CharField(max_length=255, blank=True, default="", help_text="The id of the driver asset.")
    model_ids = db.JSONField(default=list, help_text="As reported by the server: IDs or names.")
    asset_list = db.JSONField(default=list, help_text="Items: id, url, mime_type, unpack.")
    runtime_type = db.CharField(max_length=64)
    properties = db.JSONField(default=dict, blank=True, help_text="pip_requirements, conda_env_file and others.")
    models = db.ManyToManyField(RegisteredModel, related_name="manifests", blank=True)
    assets = db.ManyToManyField(Asset, related_name="manifests", blank=True)

    class Meta(Mirrored.Meta):
        pass

    def __str__(self) -> str:
        return self.description or f"manifest {self.pk}"
