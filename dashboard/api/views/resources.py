"""Routes that read accounts and their resources. Lists take the parameters of the pages."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.core.paginator import Page
from django.db.models import QuerySet
from django.http import HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404

from dashboard.access.guards import visible_accounts
from dashboard.access.permissions import Permission, role_label
from dashboard.api import serializers
from dashboard.api.errors import invalid_field
from dashboard.api.guards import ApiRequest, View, any_token, requires
from dashboard.api.openapi import common, resources, settings
from dashboard.api.openapi.declare import Schema, declare
from dashboard.api.openapi.fields import list_query
from dashboard.api.parsing import MAX_INTEGER
from dashboard.auth import tokens
from dashboard.catalog.badges import with_badges
from dashboard.catalog.lineage import NOUN, PATHS
from dashboard.catalog.listing import ListConfig, Listing
from dashboard.catalog.lists import assets, images, manifests, models, operations, services
from deployments.models import Asset, HostingAccount, RegisteredModel


@dataclass(frozen=True)
class ListedResource:
    """Resources of one kind: their rows, list, serializers, and the response types of both."""

    name: str
    rows: Callable[[], QuerySet[Any]]
    config: ListConfig
    serialize: Callable[[Any], Any]
    serialize_detail: Callable[[Any], Any]
    responses: type[Any]
    response: type[Any]

    @property
    def query(self) -> dict[str, Schema]:
        """The query parameters of the list, with their schemas."""
        parents = [NOUN[other] for other in NOUN if self.rows().model in PATHS[other]]
        flags = {name: choice.label for name, choice in self.config.flags.items()}
        return list_query(self.config.states, self.config.orders, flags, self.config.exact, parents)


RESOURCES = {
    resource.name: resource
    for resource in (
        ListedResource(
            "model",
            RegisteredModel.objects.all,
            models.LIST,
            serializers.serialize_model,
            serializers.serialize_model,
            resources.ModelList,
            resources.Model,
        ),
        ListedResource(
            "asset",
            Asset.objects.all,
            assets.LIST,
            serializers.serialize_asset,
            serializers.serialize_asset,
            resources.AssetList,
            resources.Asset,
        ),
        ListedResource(
            "manifest",
            manifests.manifests_with_models,
            manifests.LIST,
            serializers.serialize_manifest,
            serializers.serialize_manifest_detail,
            resources.ManifestList,
            resources.ManifestDetail,
        ),
        ListedResource(
            "image",
            images.images_with_models,
            images.LIST,
            serializers.serialize_image,
            serializers.serialize_image,
            resources.ImageList,
            resources.Image,
        ),
        ListedResource(
            "service",
            services.services_with_models,
            services.LIST,
            serializers.serialize_service,
            serializers.serialize_service,
            resources.ServiceList,
            resources.Service,
        ),
        ListedResource(
            "operation",
            operations.operations_with_subjects,
            operations.LIST,
            serializers.serialize_operation,
            serializers.serialize_operation_detail,
            resources.OperationList,
            resources.OperationDetail,
        ),
    )
}


@any_token
@declare(settings.AccountList)
def list_accounts(request: ApiRequest) -> HttpResponse:
    """List the hosting accounts that the token can access."""
    token = request.token
    ranked = [(account, tokens.access_level(token, account.pk)) for account in visible_accounts(token.owner)]
    shown = [serializers.serialize_account(account, role_label(rank)) for account, rank in ranked if rank]
    return JsonResponse({"accounts": shown})


@requires(Permission.SEE)
@declare(settings.AccountDetail)
def get_account(request: ApiRequest, account: HostingAccount) -> HttpResponse:
    """Return one account, with the names of its registries and clusters."""
    role = role_label(request.access_level)
    return JsonResponse(serializers.serialize_account_detail(account, role))


def list_of(name: str) -> View:
    """Return the view that lists the resources called `name`."""
    resource = RESOURCES[name]

    @declare(resource.responses, query=resource.query)
    def list_rows(request: ApiRequest, account: HostingAccount) -> HttpResponse:
        _check_query(request, resource)
        listing = Listing(request, account, resource.rows().filter(account=account), resource.config)
        return JsonResponse(
            {f"{name}s": [resource.serialize(row) for row in listing.rows], **page_position(request, listing.page)}
        )

    list_rows.__doc__ = f"List the {name}s of the account. Parameters: {', '.join(sorted(resource.query))}."
    return requires(Permission.SEE)(list_rows)


def page_position(request: ApiRequest, page: "Page[Any]") -> common.Page:
    """Return the number of rows and pages, the number of this page, and the path of the next one."""
    next_path = None
    if page.has_next():
        query = request.GET.copy()
        query["page"] = str(page.next_page_number())
        next_path = f"{request.path}?{query.urlencode()}"
    paginator = page.paginator
    return {"found": paginator.count, "page": page.number, "pages": paginator.num_pages, "next": next_path}


def get_one(name: str) -> View:
    """Return the view that shows one of the resources called `name`."""

    @declare(RESOURCES[name].response)
    def get_row(request: ApiRequest, account: HostingAccount, pk: int | UUID) -> HttpResponse:
        return JsonResponse(serialize_one(name, account, pk))

    get_row.__doc__ = f"Return one {name}."
    return requires(Permission.SEE)(get_row)


def serialize_one(name: str, account: HostingAccount, pk: int | UUID) -> Any:
    """Return one row as JSON object. Raise Http404 if the account has no such row."""
    resource = RESOURCES[name]
    row = get_object_or_404(resource.rows(), account=account, pk=pk)
    if resource.config.has_badges:
        with_badges(account, [row])
    return resource.serialize_detail(row)


def check_parameters(request: ApiRequest, known: Iterable[str]) -> None:
    """Raise ApiError for an unknown parameter, or a page that isn't a positive integer."""
    for name, values in request.GET.lists():
        if name not in known:
            raise invalid_field(name[:100], f"This parameter doesn’t exist. Parameters: {', '.join(sorted(known))}.")
        if name == "page" and not all(map(_is_number, values)):
            raise invalid_field(name, "Use a number from 1 up.")


def _check_query(request: ApiRequest, resource: ListedResource) -> None:
    """Raise ApiError for unknown values.

    Pages ignore them, but a program must not mistake an unfiltered list for the one that it requested.
    """
    config = resource.config
    check_parameters(request, resource.query)
    for name, values in request.GET.lists():
        for value in values:
            if name == "state" and value not in config.states:
                raise invalid_field(name, f"This state doesn’t exist. States: {', '.join(config.states)}.")
            if name == "sort" and value.removeprefix("-") not in config.orders:
                raise invalid_field(
                    name, f"This order doesn’t exist. Orders: {', '.join(config.orders)}, or with a “-” in front."
                )
            if name in config.exact and value not in dict(config.exact[name]):
                raise invalid_field(name, f"This value doesn’t exist. Values: {', '.join(dict(config.exact[name]))}.")
            if name in config.flags and value not in {"0", "1"}:
                raise invalid_field(name, "Give 1 or 0.")
            if name in NOUN.values() and not _is_number(value):
                raise invalid_field(name, "Use a number from 1 up.")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20 and 0 < int(text) <= MAX_INTEGER
