"""The specification of a build: one JSON document on stdin, so that no password is in an argument list or a file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mms.images.sources.fetch import Policy, base_name

MAX_SCRIPT_BYTES = 1024**2  # of a driver or schema: parsing it takes up to 500 times as much memory


@dataclass(frozen=True)
class Model:
    """A model version to download."""

    name: str
    version: int
    url: str
    unpack: bool = False
    mime_type: str = ""

    @property
    def label(self) -> str:
        """Return the model's name in messages."""
        return f"model {self.name} {self.version}"


@dataclass(frozen=True)
class Asset:
    """An asset to download."""

    id: str
    url: str
    unpack: bool = False
    mime_type: str = ""

    @property
    def label(self) -> str:
        """Return the asset's name in messages."""
        return f"asset {self.id}"

    @property
    def is_schema(self) -> bool:
        """True if the asset defines the fields of requests: a file called schema or schema.json."""
        return not self.unpack and bool({self.id, base_name(self.url)} & {"schema", "schema.json"})


@dataclass(frozen=True, repr=False)  # the repr would show the password
class Credentials:
    """The registry to push to, with the user and password for it."""

    location: str
    user: str = ""
    password: str = ""


@dataclass(frozen=True)
class Spec:
    """Everything that a build needs to know."""

    store: Path
    tmp: Path  # on the store's file system
    result: Path
    image_id: str
    models: list[Model]
    assets: list[Asset]
    driver: str  # id of an asset
    runtime_type: str
    pip_requirements: str  # the text, or its URL
    conda_env_file: str
    registry: Credentials
    repository: str
    tag: str
    base: str
    policy: Policy
    unpack_max_bytes: int
    python: str  # path of the interpreter that uv inspects
    pip_config: Path | None = None  # the site's pip configuration file
    private_hosts: tuple[str, ...] = ()  # hosts in private networks that registries may refer to

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Spec":
        """Return the specification written by mms.operations.builds. Raises KeyError or TypeError if malformed."""
        fetch = dict(document["fetch"])
        unpack_max_bytes = fetch.pop("unpack_max_bytes")
        fetch["allow_below"] = tuple(fetch.get("allow_below", ()))
        return cls(
            store=Path(document["store"]),
            tmp=Path(document["tmp"]),
            result=Path(document["result"]),
            image_id=document["image_id"],
            driver=document["driver"] or "",
            runtime_type=document["runtime_type"],
            pip_requirements=document["pip_requirements"] or "",
            conda_env_file=document["conda_env_file"] or "",
            repository=document["repository"],
            tag=document["tag"],
            base=document["base"] or "",
            pip_config=Path(document["pip_config"]) if document.get("pip_config") else None,
            models=[Model(**item) for item in document["models"]],
            assets=[Asset(**item) for item in document["assets"]],
            registry=Credentials(**document["registry"]),
            policy=Policy(**fetch),
            unpack_max_bytes=unpack_max_bytes,
            python=document["python"],
            private_hosts=tuple(document.get("private_hosts", ())),
        )
