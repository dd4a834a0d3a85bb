"""Matching of operations with resources at the server, for the mirror and for reconciliation."""

import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.db.models import Q

from deployments.client import wire
from deployments.models import HostingAccount, Operation
from deployments.models.operation import OPEN, SERVICE_CHANGES, Kind, State
from deployments.operations.requests import BUILDERS, RequestRefusedError, from_body
from deployments.resources.rows import Item
from netguard.redaction import MASK

CLOCK_TOLERANCE = timedelta(seconds=5)  # servers round dates to seconds
RESULT_TYPES = {
    Kind.REGISTER_MODEL: wire.Model,
    Kind.CREATE_MANIFEST: wire.Manifest,
    Kind.CREATE_IMAGE: wire.Image,
    Kind.CREATE_SERVICE: wire.Service,
}


def request_of(operation: Operation) -> wire.Request:
    """Return the operation's request. Raises RequestRefusedError if a row it refers to was deleted."""
    return BUILDERS[operation.kind](**from_body(operation.account, operation.body))


def consequence_of_giving_up(operation: Operation) -> str:
    """Return what happens to the effect of a lost request that is marked as failed, as part of a sentence."""
    if operation.kind in SERVICE_CHANGES:
        return "the change stays in effect"
    if operation.kind == Kind.CREATE_IMAGE and operation.account.lists_images is False:
        return "the image exists on the server but never appears here, because this server has no list of images"
    return "the lists show it as created outside the dashboard"


def may_match(request: wire.Request, item: Item) -> bool:
    """Return True if the request may have created the item. An image that names no manifest may match any request."""
    match request, item:
        case wire.NewModel(), wire.Model():
            names = _same(request.name, item.name) and _same(request.description, item.description)
            return names and _same(request.url, item.url)
        case wire.NewManifest(), wire.Manifest():
            same = all(map(_same, _comparable(request), _comparable(item)))
            sizes = len(request.model_ids) == len(item.model_ids) and len(request.assets) == len(item.assets)
            return same and sizes
        case wire.NewImage(), wire.Image():
            is_described = not item.description or _same(request.description, item.description)
            return item.manifest_id in {request.manifest_id, None} and is_described
        case wire.NewService(), wire.Service():
            is_same_image = item.image_id is None or same_id(item.image_id, request.image_id)
            return is_same_image and _same(request.name, item.name)
    return False


def same_id(one: str, other: str) -> bool:
    """Return True if two ids are equal except for case, which some servers change."""
    return one.casefold() == other.casefold()


def matches(request: wire.Request, item: Item) -> bool:
    """Return True if the item has enough information to attribute it to the request."""
    return may_match(request, item) and not (isinstance(item, wire.Image) and item.manifest_id is None)


def is_older(operation: Operation, item: Item, clock_ahead: timedelta | None) -> bool:
    """Return True if the item was probably created before the operation was requested, by the server's clock."""
    if item.created_at is None or clock_ahead is None:
        return False
    return item.created_at < operation.requested_at + clock_ahead - CLOCK_TOLERANCE


def unlinked_operations(account: HostingAccount, of: type[Any]) -> list[tuple[Operation, wire.Request]]:
    """Return operations that created, or may yet create, a resource of this class that no row is linked to."""
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


def _comparable(manifest: wire.NewManifest | wire.Manifest) -> Iterable[str]:
    assets = sorted((asset.id, asset.url) for asset in manifest.assets)
    return manifest.driver_program, manifest.description, manifest.runtime_type, *(text for a in assets for text in a)


def _same(requested: str, listed: str) -> bool:
    """Return True if the texts are equal, except where a secret was removed from the listed one."""
    if MASK not in listed:
        return requested == listed
    return bool(re.fullmatch(".+".join(map(re.escape, listed.split(MASK))), requested, re.DOTALL))
