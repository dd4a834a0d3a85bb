"""GET: the accounts, the lists of an account, and one of each. The lists are those of the pages, asked for as there."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.core.paginator import Page
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404

from dashboard import tokens
from dashboard.access import visible_accounts
from dashboard.api import things
from dashboard.api.bodies import NUMBER_MAX
from dashboard.api.guard import View, any_token, requires
from dashboard.api.problems import wrong
from dashboard.lineage import NOUN, PATHS
from dashboard.listing import Listing, Shape
from dashboard.permissions import Permission, name_of_rank
from dashboard.rows import with_badges
from dashboard.views import assets, images, manifests, models, operations, services
from deployments.models import Asset, HostingAccount, Operation, RegisteredModel


@dataclass(frozen=True)
class Noun:
    """One noun: its rows, the shape of its list, and how a row is shown there and alone."""

    name: str
    rows: Callable[[], QuerySet[Any]]
    shape: Shape
    show: Callable[[Any], dict[str, Any]]
    show_whole: Callable[[Any], dict[str, Any]]


def _operations() -> QuerySet[Operation]:
    return Operation.objects.select_related(*operations.ABOUT).defer("service__scoring_key")


NOUNS = {
    noun.name: noun
    for noun in (
        Noun("model", RegisteredModel.objects.all, models.SHAPE, things.show_model, things.show_model),
        Noun("asset", Asset.objects.all, assets.SHAPE, things.show_asset, things.show_asset),
        Noun("manifest", manifests.with_models, manifests.SHAPE, things.show_manifest, things.show_manifest_whole),
        Noun("image", images.with_models, images.SHAPE, things.show_image, things.show_image),
        Noun("service", services.with_models, services.SHAPE, things.show_service, things.show_service),
        Noun("operation", _operations, operations.SHAPE, things.show_operation, things.show_operation_whole),
    )
}


@any_token
def list_accounts(request: HttpRequest) -> HttpResponse:
    """The hosting accounts that the token opens."""
    token = request.token  # type: ignore[attr-defined]
    ranked = [(account, tokens.rank(token, account.pk)) for account in visible_accounts(token.owner)]
    shown = [things.show_account(account, name_of_rank(rank)) for account, rank in ranked if rank]
    return JsonResponse({"accounts": shown})


@requires(Permission.SEE)
def get_account(request: HttpRequest, account: HostingAccount) -> HttpResponse:
    """One account, with the names of its registries and clusters."""
    role = name_of_rank(request.rank)  # type: ignore[attr-defined]
    return JsonResponse(things.show_account_whole(account, role))


def list_of(name: str) -> View:
    """The view that lists the noun called `name`."""
    noun = NOUNS[name]

    def list_rows(request: HttpRequest, account: HostingAccount) -> HttpResponse:
        rows = noun.rows().filter(account=account)
        _check_query(request, rows.model, noun.shape)
        listing = Listing(request, account, rows, noun.shape)
        return JsonResponse({f"{name}s": [noun.show(row) for row in listing.rows], **where(request, listing.page)})

    list_rows.__doc__ = f"The {name}s of the account, {_described(noun)}."
    return requires(Permission.SEE)(list_rows)


def where(request: HttpRequest, page: Page) -> dict[str, Any]:
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

    def get_row(request: HttpRequest, account: HostingAccount, pk: int | UUID) -> HttpResponse:
        return JsonResponse(show_one(name, account, pk))

    get_row.__doc__ = f"One {name}."
    return requires(Permission.SEE)(get_row)


def show_one(name: str, account: HostingAccount, pk: int | UUID) -> dict[str, Any]:
    """One row as the API shows it. Raises Http404."""
    noun = NOUNS[name]
    row = get_object_or_404(noun.rows(), account=account, pk=pk)
    if noun.shape.badges:
        with_badges(account, [row])
    return noun.show_whole(row)


def _described(noun: Noun) -> str:
    return f"as ?{'=, ?'.join(sorted(_parameters(noun.rows().model, noun.shape)))}= say"


def _parameters(cls: type[Any], shape: Shape) -> set[str]:
    within = {NOUN[other] for other in NOUN if cls in PATHS[other]}
    return {"q", "sort", "page", *(["state"] if shape.states else []), *shape.toggles, *shape.exact, *within}


def check_names(request: HttpRequest, known: Iterable[str]) -> None:
    """Raise Problem for a parameter that there is not, and for a page that is no number."""
    for name, values in request.GET.lists():
        if name not in known:
            raise wrong(name[:100], f"There is no such parameter. Parameters: {', '.join(sorted(known))}.")
        if name == "page" and not all(map(_is_number, values)):
            raise wrong(name, "Give a number from 1 on.")


def _check_query(request: HttpRequest, cls: type[Any], shape: Shape) -> None:
    """Raise Problem for what a page would pass over: a program should not take everything for what it asked for."""
    known = _parameters(cls, shape)
    orders = [column.key for column in shape.columns if column.order]
    check_names(request, known)
    for name, values in request.GET.lists():
        for value in values:
            if name == "state" and value not in shape.states:
                raise wrong(name, f"There is no such state. States: {', '.join(shape.states)}.")
            if name == "sort" and value.removeprefix("-") not in orders:
                raise wrong(name, f"There is no such order. Orders: {', '.join(orders)}, or with a “-” before them.")
            if name in shape.exact and value not in dict(shape.exact[name]):
                raise wrong(name, f"There is no such value. Values: {', '.join(dict(shape.exact[name]))}.")
            if name in shape.toggles and value not in {"0", "1"}:
                raise wrong(name, "Give 1 or 0.")
            if name in NOUN.values() and not _is_number(value):
                raise wrong(name, "Give a number from 1 on.")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20 and 0 < int(text) <= NUMBER_MAX
