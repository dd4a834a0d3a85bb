"""What uses a registry or a cluster now."""

from django.db.models import Q, QuerySet

from deployments.models import Cluster, Operation, RegistryInfo
from deployments.models.operation import OPEN, Kind


def operations_with_registry(registry: RegistryInfo) -> "QuerySet[Operation]":
    """The open operations that push to it."""
    return _open(registry).filter(kind=Kind.CREATE_IMAGE, body__registry=registry.pk)


def operations_with_cluster(cluster: Cluster) -> "QuerySet[Operation]":
    """The open operations that make or update services on it."""
    by_service = Q(kind=Kind.UPDATE_SERVICE, service__cluster=cluster)
    return _open(cluster).filter(by_service | Q(body__cluster=cluster.pk))


def _open(row: RegistryInfo | Cluster) -> "QuerySet[Operation]":
    rows = Operation.objects.filter(account_id=row.account_id, state__in=OPEN)
    return rows.select_related("image", "service").defer("service__scoring_key")
