"""Base images: pulled once and stored, and extended by the layers of a build."""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from mms.images.plan.spec import Credentials
from mms.images.registry.client import DOCKER_INDEX_TYPE, Registry, RegistryError, split_location
from mms.images.store.layers import MEDIA_TYPE
from mms.images.store.layout import INDEX_TYPE, Store, dump, replace_file

TAG_MAX_AGE_SECONDS = 24 * 3600.0  # resolve a tag again after this time; a digest never changes
_DOCKER_LAYER_TYPE = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_REFERENCE = re.compile(r"(?P<name>[^@]+?)(?::(?P<tag>[\w.-]+))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?")


@dataclass(frozen=True)
class BaseImage:
    """The layers and the config of a base image; both are empty if no base image is configured."""

    layers: list[dict[str, Any]] = field(default_factory=list)  # descriptors
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def diff_ids(self) -> list[str]:
        """Return the diff ids of its layers."""
        return list(self.config.get("rootfs", {}).get("diff_ids", []))

    @property
    def history(self) -> list[dict[str, Any]]:
        """Return the `history` of the image config: one entry per layer or instruction."""
        return list(self.config.get("history", []))

    @property
    def environment(self) -> dict[str, str]:
        """Return its environment variables."""
        return dict(item.split("=", 1) for item in self.config.get("config", {}).get("Env") or [])

    @property
    def python(self) -> str:
        """Return its Python's minor version from PYTHON_VERSION, as set by the official images; "" if unset."""
        return ".".join(self.environment.get("PYTHON_VERSION", "").split(".")[:2])


@dataclass(frozen=True)
class Reference:
    """A parsed image reference."""

    location: str  # of the registry
    repository: str
    reference: str  # tag or digest


def parse_reference(text: str) -> Reference:
    """Parse `[http://]host[:port]/repository[:tag][@digest]`, or a Docker Hub name as in `docker pull`.

    Raises RegistryError.
    """
    scheme, mark, rest = text.rpartition("://")
    match = _REFERENCE.fullmatch(rest)
    if not match:
        raise RegistryError(f"{text!r} isn't an image reference. Write it as registry/repository:tag.")
    host, _, repository = match["name"].partition("/")
    if not repository or not ("." in host or ":" in host or host == "localhost"):
        host, repository = "registry-1.docker.io", match["name"] if "/" in match["name"] else f"library/{match['name']}"
    return Reference(f"{scheme}{mark}{host}", repository, match["digest"] or match["tag"] or "latest")


def pull_base_image(
    text: str, platform: str, store: Store, credentials: Credentials, listed: Sequence[str] = ()
) -> BaseImage:
    """Return the base image `text` for `platform`, with its blobs in the store. Raises RegistryError.

    listed: hosts in private networks that its registry may refer to.
    """
    reference = parse_reference(text)
    record = record_path(text, platform, store)
    base = _load_record(record, store)
    if base and (reference.reference.startswith("sha256:") or _age(record) < TAG_MAX_AGE_SECONDS):
        return base
    is_own = split_location(credentials.location)[0] == split_location(reference.location)[0]
    user, password = (credentials.user, credentials.password) if is_own else ("", "")
    registry = Registry(reference.location, user, password, listed)
    manifest = _read_manifest(registry, reference, platform)
    with store.scratch_folder() as scratch:
        for descriptor in [manifest["config"], *manifest["layers"]]:
            if not store.has_blob(descriptor["digest"], descriptor["size"]):
                registry.pull_blob(reference.repository, descriptor, scratch / "blob")
                store.add_blob(scratch / "blob", descriptor["digest"])
    layers = [_oci_descriptor(layer) for layer in manifest["layers"]]
    base = BaseImage(layers, store.read_json(manifest["config"]["digest"]))
    if f"{base.config.get('os')}/{base.config.get('architecture')}" != platform:
        raise RegistryError(
            f"The base image {text} isn't for {platform}. Set MMS_BASE_IMAGE to an image for this platform."
        )
    replace_file(record, dump({"layers": base.layers, "config": base.config}))
    return base


def record_path(text: str, platform: str, store: Store) -> Path:
    """Return the path of the record that lists the blobs of the base image `text`."""
    return store.root / "known" / f"base-{sha256(f'{text} {platform}'.encode()).hexdigest()}.json"


def _read_manifest(registry: Registry, reference: Reference, platform: str) -> dict[str, Any]:
    """Return the manifest for `platform`, from an index if `reference` is one."""
    manifest = registry.manifest(reference.repository, reference.reference)
    if manifest.get("mediaType") in {INDEX_TYPE, DOCKER_INDEX_TYPE} or "manifests" in manifest:
        for entry in manifest["manifests"]:
            target = entry.get("platform", {})
            if f"{target.get('os')}/{target.get('architecture')}" == platform:
                return registry.manifest(reference.repository, entry["digest"])
        raise RegistryError(f"{reference.repository} has no image for {platform}. Set MMS_BASE_IMAGE to one that has.")
    return manifest


def _oci_descriptor(descriptor: dict[str, Any]) -> dict[str, Any]:
    """Return a layer's descriptor with OCI's media type and without extra fields."""
    media_type = MEDIA_TYPE if descriptor["mediaType"] == _DOCKER_LAYER_TYPE else descriptor["mediaType"]
    return {"mediaType": media_type, "digest": descriptor["digest"], "size": descriptor["size"]}


def _load_record(record: Path, store: Store) -> BaseImage | None:
    try:
        base = BaseImage(**json.loads(record.read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return base if all(store.has_blob(layer["digest"], layer["size"]) for layer in base.layers) else None


def _age(path: Path) -> float:
    return time.time() - path.stat().st_mtime
