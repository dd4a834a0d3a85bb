"""The bodies of requests. Every spelling a client may use is known here; `null` means *not sent*.

A field nobody knows is refused by name, so that a typing error is not silently ignored. What the clients of 2017 send
besides the reference is listed as IGNORED.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from mms.api.schemas import fields

UNPACK = {"unpack": "unPack"}
MIME_TYPE = {"mimetype": "mimeType", "mimetypes": "mimeType", "mimeTypes": "mimeType"}


class RequestBody(BaseModel):
    """A request body. Other spellings become ours, and fields of other dialects are dropped, before the check."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)
    SPELLINGS: ClassVar[dict[str, str]] = {}
    IGNORED: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _one_spelling(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        sent = {key: value for key, value in data.items() if value is not None and key not in cls.IGNORED}
        for other in cls.SPELLINGS.keys() & sent.keys():
            value = sent.pop(other)
            sent.setdefault(cls.SPELLINGS[other], value)
        return sent


class RegisterModel(RequestBody):
    SPELLINGS = UNPACK | MIME_TYPE

    name: fields.ModelName
    tags: Annotated[list[fields.Tag], Field(max_length=100)] = []
    description: Annotated[fields.Text, Field(max_length=200)] = ""
    url: fields.Url
    mime_type: fields.MimeType = ""
    unpack: bool = Field(default=False, alias="unPack")


class AssetItem(RequestBody):
    SPELLINGS = UNPACK | MIME_TYPE

    id: fields.AssetId
    url: fields.Url
    mime_type: fields.MimeType
    unpack: bool = Field(default=False, alias="unPack")


class RuntimeProperties(RequestBody):
    pip_requirements: fields.Requirements | None = None
    conda_env_file: fields.Requirements | None = None


class TargetRuntime(RequestBody):
    runtime_type: fields.Runtime
    properties: RuntimeProperties = RuntimeProperties()


class CreateManifest(RequestBody):
    IGNORED = frozenset({"name", "webserviceType"})

    driver_program: Annotated[fields.Text, Field(max_length=255)] = ""
    description: Annotated[fields.Text, Field(max_length=512)] = ""
    model_type: fields.Registered
    model_ids: Annotated[list[fields.ModelReference], Field(min_length=1, max_length=200)]
    assets: Annotated[list[AssetItem], Field(max_length=200)]
    target_runtime: TargetRuntime


class RegistryInfo(RequestBody):
    user: Annotated[fields.Text, Field(max_length=200)]
    location: fields.RegistryLocation
    password: Annotated[fields.Text, Field(max_length=8192)]


class CreateImage(RequestBody):
    IGNORED = frozenset({"name"})

    manifest_id: fields.Id
    description: Annotated[fields.Text, Field(max_length=512)] = ""
    image_type: fields.Docker
    registry_info: RegistryInfo


class CreateService(RequestBody):
    IGNORED = frozenset({"dataCollection"})

    image_id: fields.Id
    name: fields.ServiceName
    kube_config: fields.KubeConfig
    acr_image_pull_secret: fields.PullSecret


class UpdateService(RequestBody):
    IGNORED = frozenset({"dataCollection"})

    manifest_id: fields.Id | None = None
    image_id: fields.Id | None = None
    acr_image_pull_secret: fields.PullSecret

    @model_validator(mode="after")
    def _names_what_to_run(self) -> "UpdateService":
        if self.manifest_id is None and self.image_id is None:
            raise fields.field_error("manifestId (or imageId) is required.")
        return self


class RegenerateKeys(RequestBody):
    key_type: Literal["Primary", "Secondary"] | None = None
