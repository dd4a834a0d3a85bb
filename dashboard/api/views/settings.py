"""Routes of an account's registries and clusters. They use the forms of the pages; secrets are write-only."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import BooleanField, ExpressionWrapper, Q, QuerySet
from django.http import HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.debug import sensitive_variables

from dashboard.access.permissions import Permission, required_level
from dashboard.actions.settings import delete_cluster, delete_registry, save_settings
from dashboard.api import serializers
from dashboard.api.errors import ApiError, invalid_form
from dashboard.api.guards import ApiRequest, View, requires
from dashboard.api.openapi import settings
from dashboard.api.openapi.declare import LOCATION, Body, declare
from dashboard.api.openapi.fields import new_row
from dashboard.api.parsing import check_fields, form_data, read_object
from dashboard.forms.fields.secret import SettingsForm
from dashboard.forms.settings.cluster import ClusterForm
from dashboard.forms.settings.registry import RegistryForm
from deployments.models import Cluster, HostingAccount, RegistryInfo


@dataclass(frozen=True)
class SettingsResource:
    """Registries or clusters: their form, permission, functions, response types and example.

    `serialize` takes a row of `rows`. `required`: fields that the form requires only in its own checks.
    """

    name: str
    plural: str
    model: type[Any]
    form_class: type[SettingsForm]
    permission: Permission
    delete: Callable[[ApiRequest, Any], bool]
    serialize: Callable[[Any], Any]
    response: type[Any]
    responses: type[Any]
    example: Mapping[str, Any]
    required: frozenset[str] = frozenset()

    def rows(self, account: HostingAccount) -> QuerySet[Any]:
        """Return the account's rows without their secrets; `has_secret` is True if there is one."""
        has_secret = ExpressionWrapper(Q((f"{self.form_class.credential_field}__isnull", False)), BooleanField())
        rows = self.model.objects.filter(account=account).defer(*self.model.SECRETS)
        annotated: QuerySet[Any] = rows.annotate(has_secret=has_secret)
        return annotated

    @property
    def body_to_add(self) -> Body:
        """The request body that adds a row."""
        return Body(
            f"Add{self.name.capitalize()}", lambda: new_row(self.form_class), self.example, required=self.required
        )

    @property
    def body_to_change(self) -> Body:
        """The request body that changes a row."""
        name = f"Change{self.name.capitalize()}"
        return Body(name, lambda: self.form_class.base_fields, {"name": self.example["name"]}, partial=True)


REGISTRY = SettingsResource(
    "registry",
    "registries",
    RegistryInfo,
    RegistryForm,
    Permission.CHANGE_REGISTRY,
    delete_registry,
    serializers.serialize_registry,
    settings.Registry,
    settings.RegistryList,
    {"name": "second", "location": "registry.example/team", "user": "robot", "password": "the-password"},
)
CLUSTER = SettingsResource(
    "cluster",
    "clusters",
    Cluster,
    ClusterForm,
    Permission.CHANGE_CLUSTER,
    delete_cluster,
    serializers.serialize_cluster,
    settings.Cluster,
    settings.ClusterList,
    {"name": "west", "kube_config": "apiVersion: v1\nkind: Config\n...", "pull_secret": "local", "production": False},
    frozenset({"kube_config"}),
)


def list_of(resource: SettingsResource) -> View:
    """Return the view that lists the rows of an account."""

    @declare(resource.responses)
    def list_rows(request: ApiRequest, account: HostingAccount) -> HttpResponse:
        can_change = request.access_level >= required_level(resource.permission)
        rows = [resource.serialize(row) if can_change else {"name": row.name} for row in resource.rows(account)]
        return JsonResponse({resource.plural: rows})

    list_rows.__doc__ = f"List the {resource.plural} of the account. Below the operator role, only their names."
    return requires(Permission.SEE)(list_rows)


def add(resource: SettingsResource) -> View:
    """Return the view that adds a row."""

    @declare(resource.response, status=201, bodies=(resource.body_to_add,), headers=LOCATION, conflicts=True)
    def add_row(request: ApiRequest, account: HostingAccount) -> HttpResponse:
        row = save_row(request, resource.form_class, resource.model(account=account))
        response = JsonResponse(_serialized(resource, account, row.pk), status=201)
        response.headers["Location"] = reverse(f"v1_get_{resource.name}", args=[account.name, row.pk])
        return response

    add_row.__doc__ = f"Add a {resource.name}."
    return requires(resource.permission, action=f"add_{resource.name}")(add_row)


def get_one(resource: SettingsResource) -> View:
    """Return the view that returns one row."""

    @declare(resource.response)
    def get_row(request: ApiRequest, account: HostingAccount, pk: int) -> HttpResponse:
        return JsonResponse(_serialized(resource, account, pk))

    get_row.__doc__ = f"Return one {resource.name}, without its secret."
    return requires(resource.permission)(get_row)


def change(resource: SettingsResource) -> View:
    """Return the view that changes a row."""

    @declare(resource.response, bodies=(resource.body_to_change,), conflicts=True)
    def change_row(request: ApiRequest, account: HostingAccount, pk: int) -> HttpResponse:
        save_row(request, resource.form_class, get_object_or_404(resource.model, account=account, pk=pk))
        return JsonResponse(_serialized(resource, account, pk))

    change_row.__doc__ = (
        f"Change a {resource.name}. Send only the fields that change; without a secret, the stored one stays in use."
    )
    return requires(resource.permission, action=f"change_{resource.name}")(change_row)


def delete(resource: SettingsResource) -> View:
    """Return the view that deletes a row."""

    @declare(None, status=204, conflicts=True)
    def delete_row(request: ApiRequest, account: HostingAccount, pk: int) -> HttpResponse:
        check_fields(read_object(request), ())
        if not resource.delete(request, get_object_or_404(resource.rows(account), pk=pk)):
            raise ApiError(409, f"An open operation uses this {resource.name}. Wait for it to finish, or cancel it.")
        return HttpResponse(status=204)

    delete_row.__doc__ = f"Delete a {resource.name} that no open operation uses."
    return requires(resource.permission, action=f"delete_{resource.name}")(delete_row)


@sensitive_variables("body", "form")
def save_row(request: ApiRequest, form_class: type[SettingsForm], instance: Any) -> Any:
    """Store and return `instance` with the fields of the body; other fields stay unchanged. Raise ApiError."""
    body, unbound = read_object(request), form_class(instance=instance)
    check_fields(body, unbound.fields)
    form = form_class(form_data(unbound.fields, {**unbound.initial, **body}), instance=instance)
    if not form.is_valid():
        raise invalid_form(form)
    return save_settings(request, form)


def _serialized(resource: SettingsResource, account: HostingAccount, pk: int) -> Any:
    return resource.serialize(get_object_or_404(resource.rows(account), pk=pk))
