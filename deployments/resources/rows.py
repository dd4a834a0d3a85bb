"""From what the server says of a resource to the row that mirrors it."""

import dataclasses
from typing import Any, TypeAlias

from django.db import models, transaction
from django.utils import timezone

from deployments.client import wire
from deployments.live.badges import Resource
from deployments.models import Image, Manifest, RegisteredModel, Service

Item: TypeAlias = wire.Model | wire.Manifest | wire.Image | wire.Service
RENAMED = {"id": "mms_id", "assets": "asset_list", "location": "registry_location", "user": "registry_user"}
# What the server says of another resource: its id there, and the column for our row of it.
LINKS: dict[str, tuple[str, type[Any]]] = {"manifest_id": ("manifest", Manifest), "image_id": ("image", Image)}
LINKED: dict[type[Any], type[Any]] = {Image: Manifest, Service: Image}
# Pairs: the name in `wire`, the name of our column.
COLUMNS_BY_TYPE: dict[type[Any], list[tuple[str, str]]] = {
    of: [
        (field.name, RENAMED.get(field.name, field.name)) for field in dataclasses.fields(of) if field.name not in LINKS
    ]
    for of in (wire.Model, wire.Manifest, wire.Image, wire.Service)
}


def columns(item: Item) -> dict[str, Any]:
    """The columns of the row, without those that this server does not report, and without links to other rows."""
    # Not dataclasses.asdict: its deep copies are most of the time that a list of 10 000 takes.
    said = {column: getattr(item, name) for name, column in COLUMNS_BY_TYPE[type(item)]}
    if isinstance(item, wire.Manifest):
        said["asset_list"] = [dataclasses.asdict(asset) for asset in item.assets]
    return {column: value for column, value in said.items() if value is not None}


def link_of(item: Item) -> tuple[str, type[Any], str] | None:
    """The other resource that the server names: our column, its class, its id at the server."""
    for name, (column, of) in LINKS.items():
        if (mms_id := getattr(item, name, None)) is not None:
            return column, of, mms_id
    return None


def apply(row: Resource, item: Item) -> None:
    """Write what the server says of the row's resource into the row."""
    values = columns(item)
    mms_id = values.pop("mms_id")
    if link := link_of(item):
        column, of, other_id = link
        if other := of._default_manager.filter(account=row.account_id, mms_id=other_id).first():
            values[column] = other
    assign_remote_id(row, mms_id, **values)
    if isinstance(row, Manifest) and not row.models.exists():
        row.models.set(RegisteredModel.objects.filter(account=row.account_id, mms_id__in=row.model_ids))


def assign_remote_id(row: Resource, mms_id: str, **values: Any) -> None:
    """The row is the server's resource `mms_id`: seen just now, with these values."""
    values |= {"mms_id": mms_id, "seen_at": timezone.now(), "vanished_at": None}
    with transaction.atomic():
        _merge_duplicate(row, mms_id)
        for name, value in values.items():
            setattr(row, name, value)
        row.save(update_fields=list(values))


def _merge_duplicate(row: Resource, mms_id: str) -> None:
    """Where a refresh has made a row for the same resource already: that one goes, what points to it moves here."""
    other = type(row)._default_manager.filter(account=row.account_id, mms_id=mms_id).exclude(pk=row.pk).first()
    if other is None:
        return
    for relation in type(row)._meta.related_objects:
        related = relation.related_model
        if isinstance(relation, models.ManyToManyRel):
            links = relation.through
            name = relation.field.m2m_reverse_field_name()
            links._default_manager.filter(**{name: other.pk}).update(**{name: row.pk})  # type: ignore[union-attr]
        else:
            related._default_manager.filter(**{relation.field.name: other}).update(**{relation.field.name: row})
    other.delete()


def mark_gone(row: Resource) -> None:
    """The server no longer has the row's resource."""
    row.vanished_at = timezone.now()
    row.save(update_fields=["vanished_at"])
