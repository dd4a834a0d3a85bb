"""Rows that mirror a resource, filled from the server's description of it."""

import dataclasses
from typing import Any, TypeAlias

from django.db import models, transaction
from django.utils import timezone

from deployments.client import wire
from deployments.live.badges import Resource
from deployments.models import Image, Manifest, RegisteredModel, Service

Item: TypeAlias = wire.Model | wire.Manifest | wire.Image | wire.Service
RENAMED = {"id": "mms_id", "assets": "asset_list", "location": "registry_location", "user": "registry_user"}
# References to other resources: attribute in `wire`, our relation and its class.
LINKS: dict[str, tuple[str, type[Any]]] = {"manifest_id": ("manifest", Manifest), "image_id": ("image", Image)}
LINKED: dict[type[Any], type[Any]] = {Image: Manifest, Service: Image}
# Pairs of attribute in `wire` and column.
COLUMNS_BY_TYPE: dict[type[Any], list[tuple[str, str]]] = {
    of: [
        (field.name, RENAMED.get(field.name, field.name)) for field in dataclasses.fields(of) if field.name not in LINKS
    ]
    for of in (wire.Model, wire.Manifest, wire.Image, wire.Service)
}


def columns(item: Item) -> dict[str, Any]:
    """Return the row's columns, without those that this server doesn't report and without links to other rows."""
    # Not dataclasses.asdict: deep copies would dominate the time for a list of 10,000.
    reported = {column: getattr(item, name) for name, column in COLUMNS_BY_TYPE[type(item)]}
    if isinstance(item, wire.Manifest):
        reported["asset_list"] = [dataclasses.asdict(asset) for asset in item.assets]
    return {column: value for column, value in reported.items() if value is not None}


def link_of(item: Item) -> tuple[str, type[Any], str] | None:
    """Return the resource that the item refers to: our relation, its class, the server id."""
    for name, (column, of) in LINKS.items():
        if (mms_id := getattr(item, name, None)) is not None:
            return column, of, mms_id
    return None


def apply(row: Resource, item: Item) -> None:
    """Update the row from the server's description of its resource."""
    values = columns(item)
    mms_id = values.pop("mms_id")
    if link := link_of(item):
        column, of, other_id = link
        if other := of._default_manager.filter(account=row.account_id, mms_id=other_id).first():
            values[column] = other
    assign_remote_id(row, mms_id, **values)
    if isinstance(row, Manifest) and not row.models.exists():
        row.models.set(RegisteredModel.objects.filter(account=row.account_id, mms_id__in=row.model_ids))


def can_assign(row: Resource, mms_id: str) -> bool:
    """Return False if another row has this server id and isn't a copy that a refresh made of the same resource."""
    other = _other_row(row, mms_id)
    return other is None or _is_copy(other, row)


def assign_remote_id(row: Resource, mms_id: str, **values: Any) -> None:
    """Set the row's server id and `values`, and mark it as just seen. Check `can_assign` first."""
    values |= {"mms_id": mms_id, "seen_at": timezone.now(), "vanished_at": None}
    with transaction.atomic():
        _merge_duplicate(row, mms_id)
        for name, value in values.items():
            setattr(row, name, value)
        row.save(update_fields=list(values))


def _merge_duplicate(row: Resource, mms_id: str) -> None:
    """Replace a row that a refresh created for the same resource: move its relations to `row` and delete it."""
    other = _other_row(row, mms_id)
    if other is None or not _is_copy(other, row):
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


def _other_row(row: Resource, mms_id: str) -> Any:
    return type(row)._default_manager.filter(account=row.account_id, mms_id=mms_id).exclude(pk=row.pk).first()


def _is_copy(other: Any, row: Resource) -> bool:
    """Return True if `other` may be a refresh's copy of what `row` was created for.

    Rows that users created or changed, or that are older, belong to something else, even if the server names them.
    """
    return not other.created_by and other.added_at >= row.added_at and not other.operations.exists()


def mark_gone(row: Resource) -> None:
    """Mark the row as no longer present at the server."""
    row.vanished_at = timezone.now()
    row.save(update_fields=["vanished_at"])
