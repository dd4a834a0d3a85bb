"""Service lookup and permission checks."""

from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.shortcuts import get_object_or_404

from dashboard.access import service_rules
from dashboard.access.permissions import Permission
from dashboard.http.request import Request
from deployments.models import HostingAccount, Operation, Service
from deployments.models.operation import OPEN

SECRETS = ("scoring_key", "account__token", "account__client_secret", "cluster__kube_config")


def services_without_secrets(account: HostingAccount) -> QuerySet[Service]:
    """Return the account's services with their image, manifest and cluster; secrets stay in the database."""
    rows = Service.objects.filter(account=account).select_related("account", "image__manifest", "cluster")
    return rows.defer(*SECRETS)


def service_or_404(account: HostingAccount, pk: int) -> Service:
    """Return the service without its secrets. Raise Http404 if the account has none with this id."""
    return get_object_or_404(services_without_secrets(account), pk=pk)


def scored_service_or_404(account: HostingAccount, pk: int) -> Service:
    """Return the service with its scoring URL and key. Raise Http404 if it has no scoring URL."""
    rows = Service.objects.filter(account=account, vanished_at=None).exclude(scoring_uri="")
    return get_object_or_404(rows, pk=pk)


def open_operation(service: Service) -> Operation | None:
    """Return the service's open operation, if it has one. A service has at most one."""
    return service.operations.filter(state__in=OPEN).first()


def check_service_permission(request: Request, permission: Permission, service: Service) -> None:
    """Raise PermissionDenied, with the reason, unless the user has `permission` for this service."""
    if why := service_rules.denial_reason(request.access_level, request.user.get_username(), permission, service):
        raise PermissionDenied(why)


def can_use_production(request: Request) -> bool:
    """Return True if the user may deploy to production clusters in the request's account."""
    return service_rules.can_act_in_production(request.access_level)
