"""Which resource at the server an operation may have made: for the mirror to leave alone, and for finding it again."""

from collections.abc import Iterable
from typing import Any

from django.db.models import Q

from deployments.client import wire
from deployments.models import HostingAccount, Operation
from deployments.models.operation import OPEN, Kind, State
from deployments.operations.requests import BUILDERS, RequestRefusedError, from_body
from deployments.resources.rows import Item

RESULT_TYPES = {
    Kind.REGISTER_MODEL: wire.Model,
    Kind.CREATE_MANIFEST: wire.Manifest,
    Kind.CREATE_IMAGE: wire.Image,
    Kind.CREATE_SERVICE: wire.Service,
}


def request_of(operation: Operation) -> wire.Request:
    """What the operation sends. Raises Refused where a row it was asked for is gone."""
    return BUILDERS[operation.kind](**from_body(operation.account, operation.body))


def secrets_of(operation: Operation) -> list[str]:
    """The secret texts that the operation sends: what is to be taken out of errors and logs."""
    try:
        return wire.secrets_in(request_of(operation))
    except RequestRefusedError:
        return []


def may_match(request: wire.Request, item: Item) -> bool:
    """Whether sending the request may have made the item. An image that names no manifest may be anybody's."""
    match request, item:
        case wire.NewModel(), wire.Model():
            return (request.name, request.url, request.description) == (item.name, item.url, item.description)
        case wire.NewManifest(), wire.Manifest():
            return _comparable(request) == _comparable(item) and len(request.model_ids) == len(item.model_ids)
        case wire.NewImage(), wire.Image():
            return item.manifest_id in {request.manifest_id, None}
        case wire.NewService(), wire.Service():
            return request.name == item.name and (item.image_id is None or same_id(item.image_id, request.image_id))
    return False


def same_id(one: str, other: str) -> bool:
    """Whether two ids name the same thing: some servers change the case of theirs."""
    return one.casefold() == other.casefold()


def matches(request: wire.Request, item: Item) -> bool:
    """Stronger: enough is known of the item to call it the operation's."""
    return may_match(request, item) and not (isinstance(item, wire.Image) and item.manifest_id is None)


def unlinked_operations(account: HostingAccount, of: type[Any]) -> list[tuple[Operation, wire.Request]]:
    """The operations that have made, or may yet make, a resource of this class that no row has the id of."""
    kind = next(kind for kind, made in RESULT_TYPES.items() if made is of)
    noun = {wire.Model: "model", wire.Manifest: "manifest", wire.Image: "image", wire.Service: "service"}[of]
    sent = Operation.objects.filter(account=account, kind=kind, sent_at__isnull=False, **{f"{noun}__mms_id": None})
    sent = sent.filter(Q(state__in=OPEN) | Q(state=State.SUCCEEDED)).order_by("requested_at")
    found = []
    for operation in sent.select_related(noun):
        operation.account = account
        try:
            found.append((operation, request_of(operation)))
        except RequestRefusedError:
            continue
    return found


def _comparable(manifest: wire.NewManifest | wire.Manifest) -> Iterable[Any]:
    assets = sorted((asset.id, asset.url) for asset in manifest.assets)
    return manifest.driver_program, manifest.description, manifest.runtime_type, assets
