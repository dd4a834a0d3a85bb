"""Response bodies, created from rows. Times are UTC; IDs are GUIDs with hyphens."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from mms import models, services

MASKED = "********"  # replaces a registry password; a difference from the reference (docs/reference/mms-api.md)


class ResponseBody(BaseModel):
    """Base of all response bodies: fields have camel-case names in JSON."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, from_attributes=True)


class Model(ResponseBody):
    """A model version."""

    id: UUID
    name: str
    version: int
    description: str
    url: str
    tags: list[str]
    mime_type: str
    unpack: bool = Field(alias="unPack")
    created_at: datetime


class Asset(ResponseBody):
    """An item of a manifest's assets."""

    id: str
    url: str
    mime_type: str
    unpack: bool = Field(alias="unPack")


class TargetRuntime(ResponseBody):
    """A manifest's target runtime."""

    runtime_type: str
    properties: dict[str, str]


class Manifest(ResponseBody):
    """A manifest."""

    id: UUID
    driver_program: str
    description: str
    created_time: datetime
    model_type: str = "Registered"
    model_ids: list[str]
    assets: list[Asset]
    target_runtime: TargetRuntime

    @classmethod
    def from_row(cls, row: models.Manifest) -> "Manifest":
        """Return the body for `row`."""
        return cls(
            id=row.id,
            driver_program=row.driver_program,
            description=row.description,
            created_time=row.created_at,
            model_ids=row.model_ids,
            assets=row.assets,
            target_runtime=TargetRuntime(runtime_type=row.runtime_type, properties=row.properties),
        )


class RegistryInfo(ResponseBody):
    """The registry that an image was pushed to. The password is always masked."""

    user: str
    location: str
    password: str = MASKED


class Image(ResponseBody):
    """A built image."""

    id: UUID
    image_type: str
    registry_info: RegistryInfo
    manifest_id: UUID
    description: str
    digest: str
    reference: str
    created_at: datetime

    @classmethod
    def from_row(cls, row: models.Image) -> "Image":
        """Return the body for `row`."""
        return cls(
            id=row.id,
            image_type=row.image_type,
            registry_info=RegistryInfo(user=row.registry_user, location=row.registry_location),
            manifest_id=row.manifest_id,
            description=row.description,
            digest=row.digest,
            reference=row.reference,
            created_at=row.created_at,
        )


class Reference(ResponseBody):
    """The ID of another resource."""

    id: UUID


class Revision(ResponseBody):
    """A revision of a service."""

    number: int
    image_id: UUID
    state: str
    detail: str
    created_at: datetime
    activated_at: datetime | None
    stopped_at: datetime | None


class Limits(ResponseBody):
    """What a service may use; 0 is no limit."""

    memory_bytes: int
    temporary_bytes: int
    tasks: int
    cpus: int


class Service(ResponseBody):
    """A service with its newest revisions."""

    id: UUID
    image_id: UUID
    name: str
    created_at: datetime
    updated_at: datetime
    state: str
    image: Reference
    manifest_id: UUID
    scoring_uri: str
    health: str
    health_detail: str
    limits: Limits
    revision: int | None
    revisions: list[Revision]

    @classmethod
    def from_row(cls, row: models.Service) -> "Service":
        """Return the body for `row`, whose image is selected and whose `newest_revisions` are prefetched."""
        revisions: list[models.Revision] = row.newest_revisions  # type: ignore[attr-defined]
        return cls(
            id=row.id,
            image_id=row.image_id,
            name=row.name,
            created_at=row.created_at,
            updated_at=row.updated_at,
            state=row.state,
            image=Reference(id=row.image_id),
            manifest_id=row.image.manifest_id,
            scoring_uri=f"{settings.GATEWAY_URL}/scoring/{row.id}/score",
            health=row.health,
            health_detail=row.health_detail,
            limits=Limits(**services.limits()),
            revision=next((revision.number for revision in revisions if revision.state == "active"), None),
            revisions=[Revision.model_validate(revision) for revision in revisions],
        )


class Keys(ResponseBody):
    """The scoring keys of a service."""

    primary_key: str
    secondary_key: str


class ChangesBody(ResponseBody):
    """Resources of a list that changed after a cursor, up to the limit of one response."""

    changed: list[Any] = Field(description="As in the list. Includes new resources.")
    removed: list[UUID]
    cursor: str = Field(description="The value of changedSince for the next request.")
    has_more: bool = Field(description="True if further changes can be requested immediately.")


class ErrorDetail(ResponseBody):
    """One invalid field, or a line of a log."""

    code: str
    message: str
    target: str = ""


class Error(ResponseBody):
    """An error with its details."""

    code: str
    message: str
    details: list[ErrorDetail] = []


class ErrorBody(ResponseBody):
    """The body of each error response."""

    error: Error


class Operation(ResponseBody):
    """An operation as clients poll it."""

    id: UUID
    operation_type: str
    verb: str
    resource_location: str
    created_time: datetime
    end_time: datetime | None
    state: str
    error: dict[str, Any] | None

    @classmethod
    def from_row(cls, row: models.Operation, account_url: str) -> "Operation":
        """Return the body for `row`."""
        noun, id = ("images", row.image_id) if row.image_id else ("services", row.service_id)
        return cls(
            id=row.id,
            operation_type=row.operation_type,
            verb=row.verb,
            resource_location=f"{account_url}/{noun}/{id}",
            created_time=row.created_at,
            end_time=row.ended_at,
            state=row.state,
            error=row.error,
        )


def from_rows(kind: Any, rows: Iterable[Any]) -> list[Any]:
    """Return the list of `kind.from_row(row)` for all rows."""
    return [kind.from_row(row) for row in rows]
