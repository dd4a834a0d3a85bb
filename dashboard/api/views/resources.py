"""GET: the accounts, the lists of an account, and one of each. The lists are those of the pages, asked for as there."""

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
from dashboard.api.errors import wrong
from dashboard.api.guards import ApiRequest, View, any_token, requires
from dashboard.api.openapi import common, resources, settings
from dashboard.api.openapi.declare import Schema, declare
from dashboard.api.openapi.fields import list_query
from dashboard.api.parsing import NUMBER_MAX
from dashboard.auth import tokens
from dashboard.catalog.badges import with_badges
from dashboard.catalog.lineage import NOUN, PATHS
from dashboard.catalog.listing import Listing, Shape
from dashboard.views.resources import assets, images, manifests, models, operations, services
from deployments.models import Asset, HostingAccount, Operation, RegisteredModel


@dataclass(frozen=True)
class Noun:
    """One noun: its rows, the shape of its list, and how a row is shown there and alone; with the types of both."""

    name: str
    rows: Callable[[], QuerySet[Any]]
    shape: Shape
    show: Callable[[Any], Any]
    show_whole: Callable[[Any], Any]
    responses: type[Any]
    response: type[Any]

    @property
    def query(self) -> dict[str, Schema]:
        """The parameters of the list."""
        orders = [column.key for column in self.shape.columns if column.order]
        parents = [NOUN[other] for other in NOUN if self.rows().model in PATHS[other]]
        toggles = {name: choice.label for name, choice in self.shape.toggles.items()}
        return list_query(self.shape.states, orders, toggles, self.shape.exact, parents)


def _operations() -> QuerySet[Operation]:
    return Operation.objects.select_related(*operations.ABOUT).defer("service__scoring_key")


NOUNS = {
    noun.name: noun
    for noun in (
        Noun(
            "model",
            RegisteredModel.objects.all,
            models.SHAPE,
            serializers.show_model,
            serializers.show_model,
            resources.ModelList,
            resources.Model,
        ),
        Noun(
            "asset",
            Asset.objects.all,
            assets.SHAPE,
            serializers.show_asset,
            serializers.show_asset,
            resources.AssetList,
            resources.Asset,
        ),
        Noun(
            "manifest",
            manifests.with_models,
            manifests.SHAPE,
            serializers.show_manifest,
            serializers.show_manifest_whole,
            resources.ManifestList,
            resources.ManifestDetail,
        ),
        Noun(
            "image",
            images.with_models,
            images.SHAPE,
            serializers.show_image,
            serializers.show_image,
            resources.ImageList,
            resources.Image,
        ),
        Noun(
            "service",
            services.with_models,
            services.SHAPE,
            serializers.show_service,
            serializers.show_service,
            resources.ServiceList,
            resources.Service,
        ),
        Noun(
            "operation",
            _operations,
            operations.SHAPE,
            serializers.show_operation,
            serializers.show_operation_whole,
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
    shown = [serializers.show_account(account, role_label(rank)) for account, rank in ranked if rank]
    return JsonResponse({"accounts": shown})


@requires(Permission.SEE)
@declare(settings.AccountDetail)
def get_account(request: ApiRequest, account: HostingAccount) -> HttpResponse:
    """Return one account, with the names of its registries and clusters."""
    role = role_label(request.access_level)
    return JsonResponse(serializers.show_account_whole(account, role))


def list_of(name: str) -> View:
    """The view that lists the noun called `name`."""
    noun = NOUNS[name]

    @declare(noun.responses, query=noun.query)
    def list_rows(request: ApiRequest, account: HostingAccount) -> HttpResponse:
        rows = noun.rows().filter(account=account)
        _check_query(request, noun)
        listing = Listing(request, account, rows, noun.shape)
        return JsonResponse({f"{name}s": [noun.show(row) for row in listing.rows], **where(request, listing.page)})

    list_rows.__doc__ = f"List the {name}s of the account. Parameters: {', '.join(sorted(noun.query))}."
    return requires(Permission.SEE)(list_rows)


def where(request: ApiRequest, page: Page) -> common.Page:
    """How many there are, which page this is of how many, and where the next one is."""
    following = None
    if page.has_next():
        query = request.GET.copy()
        query["page"] = str(page.next_page_number())
        following = f"{request.path}?{query.urlencode()}"
    paginator = page.paginator
    return {"found": paginator.count, "page": page.number, "pages": paginator.num_pages, "next": following}


def get_one(name: str) -> View:
    """The view that shows one row of the noun called `name`."""

    @declare(NOUNS[name].response)
    def get_row(request: ApiRequest, account: HostingAccount, pk: int | UUID) -> HttpResponse:
        return JsonResponse(show_one(name, account, pk))

    get_row.__doc__ = f"Return one {name}."
    return requires(Permission.SEE)(get_row)


def show_one(name: str, account: HostingAccount, pk: int | UUID) -> Any:
    """One row as the API shows it. Raises Http404."""
    noun = NOUNS[name]
    row = get_object_or_404(noun.rows(), account=account, pk=pk)
    if noun.shape.badges:
        with_badges(account, [row])
    return noun.show_whole(row)


def check_names(request: ApiRequest, known: Iterable[str]) -> None:
    """Raise Problem for a parameter that there is not, and for a page that is no number."""
    for name, values in request.GET.lists():
        if name not in known:
            raise wrong(name[:100], f"This parameter doesn’t exist. Parameters: {', '.join(sorted(known))}.")
        if name == "page" and not all(map(_is_number, values)):
            raise wrong(name, "Use a number from 1 up.")


def _check_query(request: ApiRequest, noun: Noun) -> None:
    """Raise Problem for what a page would pass over: a program should not take everything for what it asked for."""
    shape = noun.shape
    orders = [column.key for column in shape.columns if column.order]
    check_names(request, noun.query)
    for name, values in request.GET.lists():
        for value in values:
            if name == "state" and value not in shape.states:
                raise wrong(name, f"This state doesn’t exist. States: {', '.join(shape.states)}.")
            if name == "sort" and value.removeprefix("-") not in orders:
                raise wrong(name, f"This order doesn’t exist. Orders: {', '.join(orders)}, or with a “-” in front.")
            if name in shape.exact and value not in dict(shape.exact[name]):
                raise wrong(name, f"This value doesn’t exist. Values: {', '.join(dict(shape.exact[name]))}.")
            if name in shape.toggles and value not in {"0", "1"}:
                raise wrong(name, "Give 1 or 0.")
            if name in NOUN.values() and not _is_number(value):
                raise wrong(name, "Use a number from 1 up.")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20 and 0 < int(text) <= NUMBER_MAX
