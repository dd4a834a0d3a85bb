"""Registries and clusters of an account: by the forms of their pages. A secret is written, and never read again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import BooleanField, ExpressionWrapper, Q, QuerySet
from django.http import HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.debug import sensitive_variables

from dashboard.access.permissions import Permission, required_level
from dashboard.api import serializers
from dashboard.api.errors import Problem, of_form
from dashboard.api.guards import ApiRequest, View, requires
from dashboard.api.openapi import settings
from dashboard.api.openapi.declare import LOCATION, Body, declare
from dashboard.api.openapi.fields import new_row
from dashboard.api.parsing import form_data, only, read_object
from dashboard.forms.fields.secret import SettingsForm
from dashboard.forms.settings.cluster import ClusterForm
from dashboard.forms.settings.registry import RegistryForm
from dashboard.views.settings import clusters, registries
from dashboard.views.settings.pages import store
from deployments.models import Cluster, HostingAccount, RegistryInfo


@dataclass(frozen=True)
class Place:
    """One noun: its form, who changes it, how it is deleted, how it is shown, and an example of it."""

    name: str
    plural: str
    cls: type[Any]
    form: type[SettingsForm]
    permission: Permission
    delete: Callable[[ApiRequest, Any], bool]
    show: Callable[[Any], Any]  # of a row of `rows`
    response: type[Any]
    responses: type[Any]
    example: Mapping[str, Any]
    required: frozenset[str] = frozenset()

    def rows(self, account: HostingAccount) -> QuerySet[Any]:
        """Without their secrets; `kept` says whether there is one."""
        kept = ExpressionWrapper(Q((f"{self.form.sealed}__isnull", False)), BooleanField())
        return self.cls.objects.filter(account=account).defer(*self.cls.SECRETS).annotate(kept=kept)

    @property
    def body_to_add(self) -> Body:
        return Body(f"Add{self.name.capitalize()}", lambda: new_row(self.form), self.example, required=self.required)

    @property
    def body_to_change(self) -> Body:
        name = f"Change{self.name.capitalize()}"
        return Body(name, lambda: self.form.base_fields, {"name": self.example["name"]}, partial=True)


REGISTRY = Place(
    "registry",
    "registries",
    RegistryInfo,
    RegistryForm,
    Permission.CHANGE_REGISTRY,
    registries.delete,
    serializers.show_registry,
    settings.Registry,
    settings.RegistryList,
    {"name": "second", "location": "registry.example/team", "user": "robot", "password": "the-password"},
)
CLUSTER = Place(
    "cluster",
    "clusters",
    Cluster,
    ClusterForm,
    Permission.CHANGE_CLUSTER,
    clusters.delete,
    serializers.show_cluster,
    settings.Cluster,
    settings.ClusterList,
    {"name": "west", "kube_config": "apiVersion: v1\nkind: Config\n...", "pull_secret": "local", "production": False},
    frozenset({"kube_config"}),
)


def list_of(place: Place) -> View:
    @declare(place.responses)
    def list_rows(request: ApiRequest, account: HostingAccount) -> HttpResponse:
        whole = request.access_level >= required_level(place.permission)
        rows = [place.show(row) if whole else {"name": row.name} for row in place.rows(account)]
        return JsonResponse({place.plural: rows})

    list_rows.__doc__ = f"List the {place.plural} of the account. Below the operator role, only their names."
    return requires(Permission.SEE)(list_rows)


def add(place: Place) -> View:
    @declare(place.response, status=201, bodies=(place.body_to_add,), headers=LOCATION, conflicts=True)
    def add_row(request: ApiRequest, account: HostingAccount) -> HttpResponse:
        row = write(request, place.form, place.cls(account=account))
        answer = JsonResponse(_shown(place, account, row.pk), status=201)
        answer.headers["Location"] = reverse(f"v1_get_{place.name}", args=[account.name, row.pk])
        return answer

    add_row.__doc__ = f"Add a {place.name}."
    return requires(place.permission, action=f"add_{place.name}")(add_row)


def get_one(place: Place) -> View:
    @declare(place.response)
    def get_row(request: ApiRequest, account: HostingAccount, pk: int) -> HttpResponse:
        return JsonResponse(_shown(place, account, pk))

    get_row.__doc__ = f"Return one {place.name}, without its secret."
    return requires(place.permission)(get_row)


def change(place: Place) -> View:
    @declare(place.response, bodies=(place.body_to_change,), conflicts=True)
    def change_row(request: ApiRequest, account: HostingAccount, pk: int) -> HttpResponse:
        write(request, place.form, get_object_or_404(place.cls, account=account, pk=pk))
        return JsonResponse(_shown(place, account, pk))

    change_row.__doc__ = (
        f"Change a {place.name}. Send only the fields that change; without a secret, the stored one stays in use."
    )
    return requires(place.permission, action=f"change_{place.name}")(change_row)


def delete(place: Place) -> View:
    @declare(None, status=204, conflicts=True)
    def delete_row(request: ApiRequest, account: HostingAccount, pk: int) -> HttpResponse:
        only(read_object(request), ())
        if not place.delete(request, get_object_or_404(place.rows(account), pk=pk)):
            raise Problem(409, f"An open operation uses this {place.name}. Wait for it to finish, or cancel it.")
        return HttpResponse(status=204)

    delete_row.__doc__ = f"Delete a {place.name} that no open operation uses."
    return requires(place.permission, action=f"delete_{place.name}")(delete_row)


@sensitive_variables("body", "form")
def write(request: ApiRequest, form_class: type[SettingsForm], instance: Any) -> Any:
    """The row, stored with what the body says; what it does not say stays as it was. Raises Problem."""
    body, unbound = read_object(request), form_class(instance=instance)
    only(body, unbound.fields)
    form = form_class(form_data(unbound.fields, {**unbound.initial, **body}), instance=instance)
    if not form.is_valid():
        raise of_form(form)
    return store(request, form)


def _shown(place: Place, account: HostingAccount, pk: int) -> Any:
    return place.show(get_object_or_404(place.rows(account), pk=pk))
