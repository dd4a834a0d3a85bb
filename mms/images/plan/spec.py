"""What the builder is told: one JSON document on stdin, so that no password is ever in an argument list or a file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mms.images.sources.fetch import Policy


@dataclass(frozen=True)
class Model:
    name: str
    version: int
    url: str
    unpack: bool = False
    mime_type: str = ""

    @property
    def label(self) -> str:
        return f"model {self.name} {self.version}"


@dataclass(frozen=True)
class Asset:
    id: str
    url: str
    unpack: bool = False
    mime_type: str = ""

    @property
    def label(self) -> str:
        return f"asset {self.id}"


@dataclass(frozen=True, repr=False)  # no repr: it would show the password
class Credentials:
    location: str
    user: str = ""
    password: str = ""


@dataclass(frozen=True)
class Spec:
    store: Path
    tmp: Path  # on the file system of the store
    result: Path
    image_id: str
    models: list[Model]
    assets: list[Asset]
    driver: str  # an asset's id
    runtime_type: str
    pip_requirements: str  # the text, or its URL
    conda_env_file: str
    registry: Credentials
    repository: str
    tag: str
    base: str
    policy: Policy
    unpack_max_bytes: int
    python: str  # path of the interpreter that uv asks about itself

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Spec":
        """Return the specification that mms.operations.builds wrote. Raises KeyError or TypeError if malformed."""
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
            models=[Model(**item) for item in document["models"]],
            assets=[Asset(**item) for item in document["assets"]],
            registry=Credentials(**document["registry"]),
            policy=Policy(**fetch),
            unpack_max_bytes=unpack_max_bytes,
            python=document["python"],
        )
