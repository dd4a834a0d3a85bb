"""Operations that use a registry or a cluster."""

from django.db.models import Q, QuerySet

from deployments.models import Cluster, Operation, RegistryInfo
from deployments.models.operation import OPEN, Kind


def operations_with_registry(registry: RegistryInfo) -> "QuerySet[Operation]":
    """Return the open operations that push to the registry."""
    return _open(registry).filter(kind=Kind.CREATE_IMAGE, body__registry=registry.pk)


def operations_with_cluster(cluster: Cluster) -> "QuerySet[Operation]":
    """Return the open operations that create or update services on the cluster."""
    by_service = Q(kind=Kind.UPDATE_SERVICE, service__cluster=cluster)
    return _open(cluster).filter(by_service | Q(body__cluster=cluster.pk))


def _open(row: RegistryInfo | Cluster) -> "QuerySet[Operation]":
    rows = Operation.objects.filter(account_id=row.account_id, state__in=OPEN)
    return rows.select_related("image", "service").defer("service__scoring_key")
