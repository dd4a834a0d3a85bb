"""The base image: what the layers of a build are put on top of, pulled once and kept in the store."""

import json
import re
import time
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from mms.images.plan.spec import Credentials
from mms.images.registry.client import DOCKER_INDEX_TYPE, Registry, RegistryError, split_location
from mms.images.store.layers import MEDIA_TYPE
from mms.images.store.layout import INDEX_TYPE, Store, dump, replace_file

TAG_MAX_AGE_SECONDS = 24 * 3600.0  # seconds for which a tag is not asked about again; a digest never changes
_DOCKER_LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_REFERENCE = re.compile(r"(?P<name>[^@]+?)(?::(?P<tag>[\w.-]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?")


@dataclass(frozen=True)
class BaseImage:
    """The layers and the config that an image starts from. None of both is a base too: the empty one."""

    layers: list[dict[str, Any]] = field(default_factory=list)  # descriptors
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def diff_ids(self) -> list[str]:
        return self.config.get("rootfs", {}).get("diff_ids", [])

    @property
    def history(self) -> list[dict[str, Any]]:
        return self.config.get("history", [])

    @property
    def environment(self) -> dict[str, str]:
        return dict(item.split("=", 1) for item in self.config.get("config", {}).get("Env") or [])

    @property
    def python(self) -> str:
        """Its Python's minor version, as the official images tell it; "" if it says nothing."""
        return ".".join(self.environment.get("PYTHON_VERSION", "").split(".")[:2])


@dataclass(frozen=True)
class Reference:
    location: str  # of the registry
    repository: str
    reference: str  # tag or digest


def parse_reference(text: str) -> Reference:
    """`[http://]host[:port]/repository[:tag][@digest]`, or a name of Docker's hub as `docker pull` takes it."""
    scheme, mark, rest = text.rpartition("://")
    match = _REFERENCE.fullmatch(rest)
    if not match:
        raise RegistryError(f"{text!r} is no reference of an image.")
    host, _, repository = match["name"].partition("/")
    if not repository or not ("." in host or ":" in host or host == "localhost"):
        host, repository = "registry-1.docker.io", match["name"] if "/" in match["name"] else f"library/{match['name']}"
    return Reference(f"{scheme}{mark}{host}", repository, match["digest"] or match["tag"] or "latest")


def pull_base_image(text: str, platform: str, store: Store, credentials: Credentials) -> BaseImage:
    """The base image `text` for `platform`, its blobs in the store. Raises RegistryError."""
    wanted = parse_reference(text)
    note = record_path(text, platform, store)
    base = _load_record(note, store)
    if base and (wanted.reference.startswith("sha256:") or _age(note) < TAG_MAX_AGE_SECONDS):
        return base
    own = split_location(credentials.location)[0] == split_location(wanted.location)[0]
    registry = Registry(wanted.location, *((credentials.user, credentials.password) if own else ()))
    manifest = _for_platform(registry, wanted, platform)
    with store.scratch_folder() as scratch:
        for descriptor in [manifest["config"], *manifest["layers"]]:
            if not store.has_blob(descriptor["digest"], descriptor["size"]):
                registry.pull_blob(wanted.repository, descriptor, scratch / "blob")
                store.add_blob(scratch / "blob", descriptor["digest"])
    layers = [_oci_descriptor(layer) for layer in manifest["layers"]]
    base = BaseImage(layers, store.read_json(manifest["config"]["digest"]))
    if f"{base.config.get('os')}/{base.config.get('architecture')}" != platform:
        raise RegistryError(f"The base image {text} is not made for {platform}.")
    replace_file(note, dump({"layers": base.layers, "config": base.config}))
    return base


def record_path(text: str, platform: str, store: Store) -> Path:
    """Where it is noted which blobs are the base image `text`."""
    return store.root / "known" / f"base-{sha256(f'{text} {platform}'.encode()).hexdigest()}.json"


def _for_platform(registry: Registry, wanted: Reference, platform: str) -> dict[str, Any]:
    manifest = registry.manifest(wanted.repository, wanted.reference)
    if manifest.get("mediaType") in {INDEX_TYPE, DOCKER_INDEX_TYPE} or "manifests" in manifest:
        for entry in manifest["manifests"]:
            made_for = entry.get("platform", {})
            if f"{made_for.get('os')}/{made_for.get('architecture')}" == platform:
                return registry.manifest(wanted.repository, entry["digest"])
        raise RegistryError(f"{wanted.repository} has no image for {platform}.")
    return manifest


def _oci_descriptor(descriptor: dict[str, Any]) -> dict[str, Any]:
    """A layer's descriptor in OCI's words, without what else it said."""
    media_type = MEDIA_TYPE if descriptor["mediaType"] == _DOCKER_LAYER_TYPE else descriptor["mediaType"]
    return {"mediaType": media_type, "digest": descriptor["digest"], "size": descriptor["size"]}


def _load_record(note: Path, store: Store) -> BaseImage | None:
    try:
        base = BaseImage(**json.loads(note.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return base if all(store.has_blob(layer["digest"], layer["size"]) for layer in base.layers) else None


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime
