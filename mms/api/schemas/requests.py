"""Request bodies. `null` means *not sent*.

Unknown fields are rejected by name, so that a misspelled field isn't silently ignored. SPELLINGS lists other accepted
spellings of fields; IGNORED lists fields that clients of 2017 send and that have no effect.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from mms.api.schemas import fields

UNPACK = {"unpack": "unPack"}
MIME_TYPE = {"mimetype": "mimeType", "mimetypes": "mimeType", "mimeTypes": "mimeType"}


class RequestBody(BaseModel):
    """Base of all request bodies: renames SPELLINGS and drops IGNORED before validation."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)
    SPELLINGS: ClassVar[dict[str, str]] = {}
    IGNORED: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _normalize(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        sent = {key: value for key, value in data.items() if value is not None and key not in cls.IGNORED}
        for spelling in cls.SPELLINGS.keys() & sent.keys():
            value = sent.pop(spelling)
            sent.setdefault(cls.SPELLINGS[spelling], value)
        return sent


class RegisterModel(RequestBody):
    """Body of POST models."""

    SPELLINGS = UNPACK | MIME_TYPE

    name: fields.ModelName
    tags: Annotated[list[fields.Tag], Field(max_length=100)] = []
    description: Annotated[fields.Text, Field(max_length=200)] = ""
    url: fields.Url
    mime_type: fields.MimeType = ""
    unpack: bool = Field(default=False, alias="unPack")


class AssetItem(RequestBody):
    """An item of a manifest's assets."""

    SPELLINGS = UNPACK | MIME_TYPE

    id: fields.AssetId
    url: fields.Url
    mime_type: fields.MimeType
    unpack: bool = Field(default=False, alias="unPack")


class RuntimeProperties(RequestBody):
    """Properties of a manifest's target runtime."""

    pip_requirements: fields.Requirements | None = None
    conda_env_file: fields.CondaEnvironment | None = None


class TargetRuntime(RequestBody):
    """A manifest's target runtime."""

    runtime_type: fields.Runtime
    properties: RuntimeProperties = RuntimeProperties()


class CreateManifest(RequestBody):
    """Body of POST manifests."""

    IGNORED = frozenset({"name", "webserviceType"})

    driver_program: Annotated[fields.Text, Field(max_length=255)] = ""
    description: Annotated[fields.Text, Field(max_length=512)] = ""
    model_type: fields.Registered
    model_ids: Annotated[list[fields.ModelReference], Field(min_length=1, max_length=200)]
    assets: Annotated[list[AssetItem], Field(max_length=200)]
    target_runtime: TargetRuntime


class RegistryInfo(RequestBody):
    """The registry that an image is pushed to, with its credentials."""

    user: Annotated[fields.Text, Field(max_length=200)]
    location: fields.RegistryLocation
    password: Annotated[fields.Text, Field(max_length=8192)]


class CreateImage(RequestBody):
    """Body of POST images."""

    IGNORED = frozenset({"name"})

    manifest_id: fields.Id
    description: Annotated[fields.Text, Field(max_length=512)] = ""
    image_type: fields.Docker
    registry_info: RegistryInfo


class CreateService(RequestBody):
    """Body of POST services."""

    IGNORED = frozenset({"dataCollection"})

    image_id: fields.Id
    name: fields.ServiceName
    kube_config: fields.KubeConfig
    acr_image_pull_secret: fields.PullSecret


class UpdateService(RequestBody):
    """Body of PUT services/{id}. An image ID takes precedence over a manifest ID."""

    IGNORED = frozenset({"dataCollection"})

    manifest_id: fields.Id | None = None
    image_id: fields.Id | None = None
    acr_image_pull_secret: fields.PullSecret

    @model_validator(mode="after")
    def _require_manifest_or_image(self) -> "UpdateService":
        if self.manifest_id is None and self.image_id is None:
            raise fields.field_error("manifestId or imageId is required.")
        return self


class RegenerateKeys(RequestBody):
    """Body of POST services/{id}/regenerateKeys."""

    key_type: Literal["Primary", "Secondary"] | None = None
