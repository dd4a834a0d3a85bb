"""All spellings of the MMS API: what is sent (`to_wire`) and what comes back (`from_wire`).

Everything a server of 2017 or of today may say in its own way is made one here: first letters of keys in either case,
`unPack`/`unpack`, bools as text, `Canceled`/`Cancelled`, lists as arrays or as `{value, nextLink}`, every ISO date
(reference, section by section; shared with nobody: the server's side has its own). No Django here.

A password or kubeconfig that a server echoes is not read, so it can end up nowhere. Text from outside is cut to what
the tables hold and freed of what a database refuses. Unusable answers raise `Garbled`.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from deployments.client.wire_values import (
    MalformedPayloadError,
    as_list,
    fold,
    last_segment,
    optional_text,
    parse_bool,
    parse_datetime,
    resource_id,
    text,
    whole_number,
)

SECRET = {"secret": True}
HIDDEN = {"hidden": True}  # what is inside a registry or cluster: people choose those by name
MASK = "…"
MAX_REASON = 4000  # characters of an error's message; a server once sent a megabyte
MAX_DETAILS = 50
MAX_PROPERTIES = 100


# --- what is sent -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AssetRef:
    """An asset as a manifest names it."""

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
    """The reference takes the manifest, clients and servers of its days the image; both are sent where known."""

    service_id: str
    image_id: str
    manifest_id: str
    pull_secret: str = field(metadata=HIDDEN)

    def to_wire(self) -> dict[str, Any]:
        manifest = {"manifestId": self.manifest_id} if self.manifest_id else {}
        return manifest | {"imageId": self.image_id, "acrImagePullSecret": self.pull_secret}


@dataclass(frozen=True)
class ServiceDeletion:
    service_id: str

    def to_wire(self) -> dict[str, Any]:
        return {}


Request = NewModel | NewManifest | NewImage | NewService | ServiceUpdate | ServiceDeletion
_PROPERTIES = {"pip_requirements": "pipRequirements", "conda_env_file": "condaEnvFile"}
_PROPERTY_NAMES = {wire.lower(): name for name, wire in _PROPERTIES.items()}


def mask_secrets(request: Request) -> Request:
    """The same request to be shown: with what is secret, or inside a registry or cluster, as "…"."""
    inside = [f.name for f in dataclasses.fields(request) if f.metadata.get("secret") or f.metadata.get("hidden")]
    hidden: Any = {name: MASK for name in inside if getattr(request, name)}
    return dataclasses.replace(request, **hidden)


def secrets_in(request: Request) -> list[str]:
    """The secret texts of a request: what must not come back in an error message."""
    return [getattr(request, f.name) for f in dataclasses.fields(request) if f.metadata.get("secret")]


def redact(told: str, secrets: Iterable[str]) -> str:
    """`told` without any of the secrets, whole or (a kubeconfig's tokens and keys) in words of 16 letters and more."""
    for secret in secrets:
        words = [word for word in re.split(r"[\s\"',{}\[\]]+", secret) if len(word) >= 16 and "://" not in word]
        for word in [secret, *words] if len(secret) >= 4 else []:
            told = told.replace(word, MASK)
    return told


# --- what comes back ----------------------------------------------------------------------------------------------


class Phase(StrEnum):
    """Where an asynchronous operation, or a service, stands at the server."""

    NOT_STARTED = "not_started"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


_PHASES = {phase.replace("_", ""): phase for phase in Phase} | {"cancelled": Phase.CANCELED}


@dataclass(frozen=True)
class Model:
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
    """None: this server does not report it."""

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
        registry = fold(keys.get("registryinfo") or {})  # its password is not read
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
    """None: this server does not report it."""

    id: str
    name: str
    image_id: str | None
    state: str  # the server's own word
    created_at: datetime | None
    updated_at: datetime | None
    health: str | None
    health_detail: str | None
    scoring_uri: str | None
    revisions: list[dict[str, Any]] | None

    @property
    def phase(self) -> Phase | None:
        return phase(self.state)

    @classmethod
    def from_wire(cls, data: Any) -> "Service":
        keys = fold(data)  # its kubeConfig is not read
        revisions = keys.get("revisions")
        return cls(
            id=resource_id(keys),
            name=text(keys.get("name"), 255) or resource_id(keys),
            image_id=optional_text(keys.get("imageid") or _id_in(keys.get("image")), 200),
            state=text(keys.get("state"), 64),
            created_at=parse_datetime(keys.get("createdat", keys.get("createdtime"))),
            updated_at=parse_datetime(keys.get("updatedat")),
            health=optional_text(keys.get("health"), 32),
            health_detail=optional_text(keys.get("healthdetail"), MAX_REASON),
            scoring_uri=_web_address(keys.get("scoringuri")),
            revisions=[_revision(r) for r in revisions[:50]] if isinstance(revisions, list) else None,
        )


@dataclass(frozen=True)
class Failure:
    """Why something failed, in the server's words."""

    code: str = ""
    message: str = ""
    details: list[dict[str, str]] = field(default_factory=list)  # items: code, message, target

    @classmethod
    def from_wire(cls, data: Any) -> "Failure":
        """Any shape of error: the object of the reference, one wrapped in {"error": …}, a text, a list, null."""
        if not isinstance(data, Mapping):
            return cls(message=text(data if isinstance(data, str) else repr(data) if data else "", MAX_REASON))
        keys = fold(data)
        if isinstance(keys.get("error"), Mapping | str):
            return cls.from_wire(keys["error"])
        code = keys.get("code") or keys.get("statuscode")
        details = [_detail(item) for item in as_list(keys.get("details"))[:MAX_DETAILS]]
        message = text(keys.get("message"), MAX_REASON) or next((d["message"] for d in details if d["message"]), "")
        return cls(text(code, 100), message, details)

    def redacted(self, secrets: Iterable[str]) -> "Failure":
        secrets = list(secrets)
        details = [{name: redact(told, secrets) for name, told in item.items()} for item in self.details]
        return Failure(self.code, redact(self.message, secrets), details)


@dataclass(frozen=True)
class OperationStatus:
    id: str
    phase: Phase | None  # None: a state nobody knows
    state: str  # the server's own word
    resource_id: str  # "" where resourceLocation is missing
    failure: Failure

    @classmethod
    def from_wire(cls, data: Any) -> "OperationStatus":
        keys = fold(data)
        state = text(keys.get("state"), 64)
        if not state:
            raise MalformedPayloadError("The operation's status has no state.")
        return cls(
            id=text(keys.get("id"), 200),
            phase=phase(state),
            state=state,
            resource_id=last_segment(text(keys.get("resourcelocation"))),
            failure=Failure.from_wire(keys.get("error")),
        )


def page(data: Any) -> tuple[list[Any], str]:
    """The items of a list answer, and the address of its next page ("" on the last)."""
    if isinstance(data, list):
        return data, ""
    keys = fold(data)
    if isinstance(keys.get("value"), list):
        return keys["value"], text(keys.get("nextlink"))
    if "id" in keys:  # the reference draws lists and single resources alike
        return [data], ""
    raise MalformedPayloadError("A list was expected.")


def _property(name: Any) -> str:
    plain = text(name, 200)
    return _PROPERTY_NAMES.get(plain.lower(), plain)


def primary_key(data: Any) -> str:
    """The primary key in the answer of `services/{id}/keys`."""
    return text(fold(data).get("primarykey"), 1000)


def phase(state: str) -> Phase | None:
    return _PHASES.get(re.sub(r"[\s_-]", "", state).lower())


def runtime_type(value: str) -> str:
    """The reference misspells SparkPython."""
    return "SparkPython" if value == "parkPython" else value


def _id_in(value: Any) -> Any:
    return fold(value).get("id") if isinstance(value, Mapping) else None


def _web_address(value: Any) -> str | None:
    """The scoring URI; only http(s) may ever become a link."""
    found = optional_text(value, 2000)
    return found if found is None or found.lower().startswith(("http://", "https://")) else ""


def _detail(item: Any) -> dict[str, str]:
    keys = fold(item) if isinstance(item, Mapping) else {"message": item}
    return {name: text(keys.get(name), MAX_REASON) for name in ("code", "message", "target")}


def _revision(item: Any) -> dict[str, Any]:
    keys = fold(item) if isinstance(item, Mapping) else {}
    return {
        "number": whole_number(keys.get("number")),
        "image_id": text(keys.get("imageid"), 200),
        "state": text(keys.get("state"), 32),
        "detail": text(keys.get("detail"), MAX_REASON),
        "created_at": text(keys.get("createdat"), 64),
        "activated_at": text(keys.get("activatedat"), 64),
        "stopped_at": text(keys.get("stoppedat"), 64),
    }
