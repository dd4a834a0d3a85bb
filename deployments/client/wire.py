"""Wire format of the MMS API: `to_wire` builds requests, `from_wire` parses responses.

Spellings that differ between servers of 2017 and current ones are normalized here: capitalization of keys,
`unPack`/`unpack`, bools as text, `Canceled`/`Cancelled`, lists as arrays or as `{value, nextLink}`, all ISO dates (MMS
API reference, "Request Body" and "Response Body" of each operation). The bundled server has its own module for this. No
Django here.

Passwords and kubeconfigs that a server echoes are never read. Text is cut to the size of the database columns and
cleaned of characters that a database rejects. Unusable responses raise MalformedPayloadError.
"""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from deployments.client.wire_values import (
    MalformedPayloadError,
    as_list,
    fold,
    normalize_state,
    noun_and_id,
    optional_text,
    parse_bool,
    parse_datetime,
    reason,
    resource_id,
    text,
    whole_number,
)
from netguard.redaction import MASK, credentials_in_kubeconfig

SECRET = {"secret": True}
HIDDEN = {"hidden": True}  # fields of a registry or cluster, which users choose by name
MAX_LIMIT = 2**53  # beyond that, a browser rounds it
MAX_REASON_CHARS = 4000  # for error messages; a server once sent a megabyte
MAX_DETAILS = 50
MAX_PROPERTIES = 100


# --- requests ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AssetRef:
    """Reference to an asset in a manifest (MMS API reference, "Create manifest")."""

    id: str
    url: str
    mime_type: str = "application/octet-stream"
    unpack: bool = False

    def to_wire(self) -> dict[str, Any]:
        return {"id": self.id, "url": self.url, "mimeType": self.mime_type, "unPack": self.unpack}

    @classmethod
    def from_wire(cls, data: Any) -> "AssetRef":
        keys = fold(data)
        mime_type = keys.get("mimetype", keys.get("mimetypes"))
        return cls(
            text(keys.get("id"), 255), text(keys.get("url")), text(mime_type, 200), parse_bool(keys.get("unpack"))
        )


@dataclass(frozen=True)
class NewModel:
    """Request to register a model (MMS API reference, "Register Model")."""

    name: str
    url: str
    tags: list[str]
    description: str
    mime_type: str
    unpack: bool

    def to_wire(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "tags": self.tags,
            "description": self.description,
            "url": self.url,
            "mimeType": self.mime_type,
            "unpack": self.unpack,
        }


@dataclass(frozen=True)
class NewManifest:
    """Request to create a manifest (MMS API reference, "Create manifest")."""

    model_ids: list[str]
    assets: list[AssetRef]
    driver_program: str
    runtime_type: str
    properties: dict[str, str]  # pip_requirements, conda_env_file
    description: str

    def to_wire(self) -> dict[str, Any]:
        properties = {_PROPERTIES.get(name, name): value for name, value in self.properties.items() if value}
        body = {
            "description": self.description,
            "modelType": "Registered",
            "modelIds": self.model_ids,
            "assets": [asset.to_wire() for asset in self.assets],
            "targetRuntime": {"runtimeType": self.runtime_type, "properties": properties},
        }
        return body | ({"driverProgram": self.driver_program} if self.driver_program else {})


@dataclass(frozen=True)
class NewImage:
    """Request to create an image (MMS API reference, "Create Image")."""

    manifest_id: str
    description: str
    location: str = field(metadata=HIDDEN)
    user: str = field(metadata=HIDDEN)
    password: str = field(repr=False, metadata=SECRET)

    def to_wire(self) -> dict[str, Any]:
        registry = {"user": self.user, "location": self.location, "password": self.password}
        return {
            "manifestId": self.manifest_id,
            "description": self.description,
            "imageType": "Docker",
            "registryInfo": registry,
        }


@dataclass(frozen=True)
class NewService:
    """Request to create a service (MMS API reference, "Create Service")."""

    name: str
    image_id: str
    pull_secret: str = field(metadata=HIDDEN)
    kube_config: str = field(repr=False, metadata=SECRET)

    def to_wire(self) -> dict[str, Any]:
        return {
            "imageId": self.image_id,
            "name": self.name,
            "kubeConfig": self.kube_config,
            "acrImagePullSecret": self.pull_secret,
        }


@dataclass(frozen=True)
class ServiceUpdate:
    """Request to update a service. The reference names the manifest, other servers expect the image: both are sent."""

    service_id: str
    image_id: str
    manifest_id: str
    pull_secret: str = field(metadata=HIDDEN)

    def to_wire(self) -> dict[str, Any]:
        manifest = {"manifestId": self.manifest_id} if self.manifest_id else {}
        return manifest | {"imageId": self.image_id, "acrImagePullSecret": self.pull_secret}


@dataclass(frozen=True)
class ServiceDeletion:
    """Request to delete a service (MMS API reference, "Delete Service"). It has no body."""

    service_id: str

    def to_wire(self) -> dict[str, Any]:
        return {}


Request = NewModel | NewManifest | NewImage | NewService | ServiceUpdate | ServiceDeletion
_PROPERTIES = {"pip_requirements": "pipRequirements", "conda_env_file": "condaEnvFile"}
_PROPERTY_NAMES = {wire.lower(): name for name, wire in _PROPERTIES.items()}


def mask_secrets(request: Request) -> Request:
    """Return the request for display, with secrets and fields of registries and clusters as "…"."""
    masked_names = [f.name for f in dataclasses.fields(request) if f.metadata.get("secret") or f.metadata.get("hidden")]
    hidden: Any = {name: MASK for name in masked_names if getattr(request, name)}
    return dataclasses.replace(request, **hidden)


def secrets_in(request: Request) -> list[str]:
    """Return the secrets of a request, which must not appear in what the server responds."""
    match request:
        case NewImage():
            return [request.password]
        case NewService():
            return credentials_in_kubeconfig(request.kube_config)
    return []


# --- responses -----------------------------------------------------------------------------------------------------


class Phase(StrEnum):
    """Phase of an asynchronous operation or of a service at the server."""

    NOT_STARTED = "not_started"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


_PHASES = {phase.replace("_", ""): phase for phase in Phase} | {"cancelled": Phase.CANCELED}


@dataclass(frozen=True)
class Model:
    """Registered model (MMS API reference, "Get Model Information")."""

    id: str
    name: str
    version: int | None
    description: str
    url: str
    tags: list[str]
    mime_type: str
    created_at: datetime | None
    unpack: bool | None = None  # None: not reported

    @classmethod
    def from_wire(cls, data: Any) -> "Model":
        keys = fold(data)
        return cls(
            id=resource_id(keys),
            name=text(keys.get("name"), 255) or resource_id(keys),
            version=whole_number(keys.get("version")),
            description=text(keys.get("description"), 512),
            url=text(keys.get("url")),
            tags=[text(tag, 200) for tag in as_list(keys.get("tags"))],
            mime_type=text(keys.get("mimetype"), 200),
            created_at=parse_datetime(keys.get("createdat", keys.get("createdtime"))),
            unpack=parse_bool(keys["unpack"]) if keys.get("unpack") is not None else None,
        )


@dataclass(frozen=True)
class Manifest:
    """Manifest (MMS API reference, "Get Manifest Information")."""

    id: str
    driver_program: str
    description: str
    model_ids: list[str]
    assets: list[AssetRef]
    runtime_type: str
    properties: dict[str, str]
    created_at: datetime | None

    @classmethod
    def from_wire(cls, data: Any) -> "Manifest":
        keys = fold(data)
        runtime = fold(keys.get("targetruntime") or {})
        properties = runtime.get("properties") or {}
        if not isinstance(properties, Mapping):
            properties = {}
        named = {_property(name): text(value) for name, value in list(properties.items())[:MAX_PROPERTIES]}
        return cls(
            id=resource_id(keys),
            driver_program=text(keys.get("driverprogram"), 255),
            description=text(keys.get("description"), 512),
            model_ids=[text(model_id, 255) for model_id in as_list(keys.get("modelids"))],
            assets=[AssetRef.from_wire(a) for a in as_list(keys.get("assets")) if isinstance(a, Mapping)],
            runtime_type=runtime_type(text(runtime.get("runtimetype"), 64)),
            properties=named,
            created_at=parse_datetime(keys.get("createdtime", keys.get("createdat"))),
        )


@dataclass(frozen=True)
class Image:
    """Image (MMS API reference, "Get Images"). None: not reported by this server."""

    id: str
    image_type: str
    location: str
    user: str
    manifest_id: str | None
    description: str | None
    digest: str | None
    created_at: datetime | None

    @classmethod
    def from_wire(cls, data: Any) -> "Image":
        keys = fold(data)
        registry = fold(keys.get("registryinfo") or {})  # the password isn't read
        return cls(
            id=resource_id(keys),
            image_type=text(keys.get("imagetype"), 32) or "Docker",
            location=text(registry.get("location"), 400),
            user=text(registry.get("user"), 200),
            manifest_id=optional_text(keys.get("manifestid") or _id_in(keys.get("manifest")), 200),
            description=optional_text(keys.get("description"), 512),
            digest=optional_text(keys.get("digest"), 100),
            created_at=parse_datetime(keys.get("createdat", keys.get("createdtime"))),
        )


@dataclass(frozen=True)
class Service:
    """Service (MMS API reference, "Get Services"). None: not reported by this server."""

    id: str
    name: str
    image_id: str | None
    state: str  # as the server spells it
    created_at: datetime | None
    updated_at: datetime | None
    health: str | None
    health_detail: str | None
    limits: dict[str, int] | None
    scoring_uri: str | None
    revisions: list[dict[str, Any]] | None

    @property
    def phase(self) -> Phase | None:
        return phase(self.state)

    @classmethod
    def from_wire(cls, data: Any) -> "Service":
        keys = fold(data)  # kubeConfig isn't read
        revisions, detail = keys.get("revisions"), keys.get("healthdetail")
        return cls(
            id=resource_id(keys),
            name=text(keys.get("name"), 255) or resource_id(keys),
            image_id=optional_text(keys.get("imageid") or _id_in(keys.get("image")), 200),
            state=text(keys.get("state"), 64),
            created_at=parse_datetime(keys.get("createdat", keys.get("createdtime"))),
            updated_at=parse_datetime(keys.get("updatedat")),
            health=optional_text(keys.get("health"), 32),
            health_detail=reason(detail, MAX_REASON_CHARS) if detail is not None else None,
            limits=_limits(keys.get("limits")),
            scoring_uri=_web_address(keys.get("scoringuri")),
            revisions=[_revision(r) for r in revisions[:50]] if isinstance(revisions, list) else None,
        )


@dataclass(frozen=True)
class Failure:
    """Reason for a failure, as reported by the server."""

    code: str = ""
    message: str = ""
    details: list[dict[str, str]] = field(default_factory=list)  # items: code, message, target

    @classmethod
    def from_wire(cls, data: Any) -> "Failure":
        """Parse any form of error: the object in the reference, one in {"error": …}, text, a list, null."""
        if isinstance(data, list) and data:
            data = repr([reason(item, MAX_REASON_CHARS) if isinstance(item, str) else item for item in data])
        if not isinstance(data, Mapping):
            return cls(message=reason(data or "", MAX_REASON_CHARS))
        keys = fold(data)
        if isinstance(keys.get("error"), Mapping | str):
            return cls.from_wire(keys["error"])
        code = keys.get("code") or keys.get("statuscode")
        details = [_detail(item) for item in as_list(keys.get("details"))[:MAX_DETAILS]]
        message = reason(keys.get("message"), MAX_REASON_CHARS) or next(
            (d["message"] for d in details if d["message"]), ""
        )
        return cls(reason(code, 100), message, details)


@dataclass(frozen=True)
class OperationStatus:
    """State of an operation (MMS API reference, "Get Async Operation Status")."""

    id: str
    phase: Phase | None  # None: unknown state
    state: str  # as the server spells it
    resource_id: str  # "" if resourceLocation is missing or unusable
    failure: Failure
    resource_noun: str = ""  # such as "images", from resourceLocation; "" if it is only an id

    @classmethod
    def from_wire(cls, data: Any) -> "OperationStatus":
        keys = fold(data)
        state = text(keys.get("state"), 64)
        if not state:
            raise MalformedPayloadError("The operation's status has no state.")
        noun, resource_id = noun_and_id(text(keys.get("resourcelocation"), 4000))
        return cls(
            id=text(keys.get("id"), 200),
            phase=phase(state),
            state=state,
            resource_id=resource_id,
            failure=Failure.from_wire(keys.get("error")),
            resource_noun=noun,
        )


@dataclass(frozen=True)
class Changes:
    """Part of a change feed, an extension: `changed` has items as in the list, `removed` ids."""

    changed: list[Any]
    removed: list[str]
    cursor: str
    has_more: bool
    is_whole_list: bool = False  # the server ignored the cursor

    @classmethod
    def from_wire(cls, data: Any) -> "Changes":
        """Parse a response. Raises MalformedPayloadError."""
        if isinstance(data, list):
            return cls([], [], "", has_more=False, is_whole_list=True)
        keys = fold(data)
        changed, removed, cursor = keys.get("changed"), keys.get("removed"), text(keys.get("cursor"), 300)
        if not isinstance(changed, list) or not isinstance(removed, list) or not re.fullmatch(r"[\x21-\x7e]+", cursor):
            raise MalformedPayloadError("The changes of a list, with a cursor, were expected.")
        return cls(changed, [resource_id({"id": id}) for id in removed], cursor, keys.get("hasmore") is True)


def page(data: Any) -> tuple[list[Any], str]:
    """Return the items of a list response and the URL of the next page, "" on the last.

    Raises MalformedPayloadError.
    """
    if isinstance(data, list):
        return data, ""
    keys = fold(data)
    if isinstance(keys.get("value"), list):
        return keys["value"], text(keys.get("nextlink"))
    if "id" in keys:  # the reference shows lists and single resources alike
        return [data], ""
    raise MalformedPayloadError("A list was expected.")


def _property(name: Any) -> str:
    plain = text(name, 200)
    return _PROPERTY_NAMES.get(plain.lower(), plain)


def primary_key(data: Any) -> str:
    """Return the primary key in a response of `services/{id}/keys`."""
    return text(fold(data).get("primarykey"), 1000)


def phase(state: str) -> Phase | None:
    """Return the phase for a server's state; None if the state is unknown."""
    return _PHASES.get(normalize_state(state))


def runtime_type(value: str) -> str:
    """Return the runtime type. The API reference misspells SparkPython as "parkPython"."""
    return "SparkPython" if value == "parkPython" else value


def _id_in(value: Any) -> Any:
    return fold(value).get("id") if isinstance(value, Mapping) else None


def _web_address(value: Any) -> str | None:
    """Return the scoring URI if it is http(s), else "": it becomes a link."""
    found = optional_text(value, 2000)
    return found if found is None or found.lower().startswith(("http://", "https://")) else ""


def _detail(item: Any) -> dict[str, str]:
    keys = fold(item) if isinstance(item, Mapping) else {"message": item}
    return {name: reason(keys.get(name), MAX_REASON_CHARS) for name in ("code", "message", "target")}


def _limits(item: Any) -> dict[str, int] | None:
    """Return what a service may use: bytes of memory and of temporary files, tasks and CPUs."""
    if not isinstance(item, Mapping):
        return None
    keys = fold(item)
    names = {"memory": "memorybytes", "temporary": "temporarybytes", "tasks": "tasks", "cpus": "cpus"}
    values = {name: keys.get(key) for name, key in names.items()}
    return {name: value for name, value in values.items() if type(value) is int and 0 < value < MAX_LIMIT}


def _revision(item: Any) -> dict[str, Any]:
    keys = fold(item) if isinstance(item, Mapping) else {}
    return {
        "number": whole_number(keys.get("number")),
        "image_id": text(keys.get("imageid"), 200),
        "state": text(keys.get("state"), 32),
        "detail": reason(keys.get("detail"), MAX_REASON_CHARS),
        "created_at": text(keys.get("createdat"), 64),
        "activated_at": text(keys.get("activatedat"), 64),
        "stopped_at": text(keys.get("stoppedat"), 64),
    }
