"""The tables of the lifecycle, one module per noun."""

from deployments.models.account import Cluster, HostingAccount, RegistryInfo
from deployments.models.asset import Asset
from deployments.models.image import Image
from deployments.models.manifest import Manifest
from deployments.models.model import RegisteredModel
from deployments.models.operation import Operation
from deployments.models.service import Service

__all__ = [
    "Asset",
    "Cluster",
    "HostingAccount",
    "Image",
    "Manifest",
    "Operation",
    "RegisteredModel",
    "RegistryInfo",
    "Service",
]
