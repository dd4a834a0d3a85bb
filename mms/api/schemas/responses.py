"""The bodies of answers: one spelling each, made from rows. Times are UTC, ids are GUIDs with hyphens."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from mms import models

MASKED = "********"  # replaces a registry password, unlike in the reference (docs/reference/mms-api.md)


class ResponseBody(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, from_attributes=True)


class Model(ResponseBody):
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
    id: str
    url: str
    mime_type: str
    unpack: bool = Field(alias="unPack")


class TargetRuntime(ResponseBody):
    runtime_type: str
    properties: dict[str, str]


class Manifest(ResponseBody):
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
    user: str
    location: str
    password: str = MASKED


class Image(ResponseBody):
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
    id: UUID


class Revision(ResponseBody):
    number: int
    image_id: UUID
    state: str
    detail: str
    created_at: datetime
    activated_at: datetime | None
    stopped_at: datetime | None


class Service(ResponseBody):
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
    revision: int | None
    revisions: list[Revision]

    @classmethod
    def from_row(cls, row: models.Service) -> "Service":
        """`row` comes with its image selected and its newest revisions prefetched as `newest_revisions`."""
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
            revision=next((revision.number for revision in revisions if revision.state == "active"), None),
            revisions=[Revision.model_validate(revision) for revision in revisions],
        )


class Keys(ResponseBody):
    primary_key: str
    secondary_key: str


class ErrorDetail(ResponseBody):
    code: str
    message: str
    target: str = ""


class Error(ResponseBody):
    code: str
    message: str
    details: list[ErrorDetail] = []


class ErrorBody(ResponseBody):
    error: Error


class Operation(ResponseBody):
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
    return [kind.from_row(row) for row in rows]
