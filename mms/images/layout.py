"""The store: every image of this server in one OCI image layout, and its layers once more, unpacked.

    <root>/oci/                  the layout: oci-layout, index.json (one name per image id), blobs/sha256/<hex>
    <root>/layers/<hex>/         the tree of one layer, by diff id, read-only: what the process engine runs
    <root>/rootfs/<hex>/         /app of one image, by manifest digest, hard links into the layers
    <root>/known/<hex>.json      layers by what they were made of, so that nothing is made twice

Everything appears by a rename, so a reader, or a build that is killed, never meets or leaves half of anything. Only
index.json is changed in place of an older one; a lock file guards that.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mms.images.layers import Layer, unpack_layer, write_layer
from mms.locks import locked, shared

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"
# What a layer of ours holds ("runtime", "site", "model …", "app"): an annotation of its descriptor in the manifest.
WHAT = "mms.layer"
SITE, RUNTIME, APP, META = "opt/mms/site", "opt/mms/runtime", "app", "opt/mms/app.json"  # paths in the image


class Missing(LookupError):
    """The store does not hold this. The text says what."""


@dataclass(frozen=True)
class Assembled:
    """An image as folders of this machine, all read-only."""

    app: Path  # the content of /app
    site: Path | None  # the content of /opt/mms/site; None where nothing was required
    runtime: Path  # the content of /opt/mms/runtime
    app_json: Path  # the file /opt/mms/app.json
    meta: dict[str, Any]  # what it says
    python: str  # "3.11"
    platform: str  # "linux/amd64"


class Store:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.oci = root / "oci"
        self._blobs = self.oci / "blobs" / "sha256"

    def prepare(self) -> None:
        """Make the folders and an empty layout, where they are missing."""
        for folder in (self._blobs, self.root / "layers", self.root / "rootfs", self.root / "known"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._locked():
            if not (self.oci / "oci-layout").exists():
                replace_file(self.oci / "index.json", dump({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}))
                replace_file(self.oci / "oci-layout", dump({"imageLayoutVersion": "1.0.0"}))

    # --- who is here ----------------------------------------------------------------------------------------------

    def used(self) -> AbstractContextManager[None]:
        """Held by who relies on something in the store that no image refers to yet, a build for its whole life:
        nothing is taken away meanwhile. Waits while somebody is `alone`, which is never for long."""
        return shared(self.root / "used.lock")

    def alone(self) -> AbstractContextManager[bool]:
        """Held by who takes things away: nobody uses the store meanwhile. Yields False, at once, if somebody does."""
        return locked(self.root / "used.lock", wait=False)

    # --- blobs ----------------------------------------------------------------------------------------------------

    def blob(self, digest: str) -> Path:
        """Where the blob lies, or would."""
        return self._blobs / digest.removeprefix("sha256:")

    def adopt(self, path: Path, digest: str) -> None:
        """Move the complete file `path` into the store."""
        path.chmod(0o444)
        path.rename(self.blob(digest))

    def put(self, document: dict[str, Any], media_type: str) -> dict[str, Any]:
        """Store a JSON document; its descriptor."""
        data = dump(document)
        digest = digest_of(data)
        if not self.blob(digest).exists():
            replace_file(self.blob(digest), data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def document(self, digest: str) -> dict[str, Any]:
        """The JSON blob with this digest. Raises Missing."""
        try:
            return json.loads(self.blob(digest).read_bytes())
        except FileNotFoundError:
            raise Missing(f"{digest} is not in the store of this machine.") from None

    # --- images ---------------------------------------------------------------------------------------------------

    def name(self, image_id: str, descriptor: dict[str, Any]) -> None:
        """Make the stored manifest `descriptor` findable as `image_id`, in place of what had that name."""
        entry = {**descriptor, "annotations": {REF_NAME: image_id}}
        with self._locked():
            index = json.loads((self.oci / "index.json").read_bytes())
            others = [other for other in index["manifests"] if other["annotations"][REF_NAME] != image_id]
            replace_file(self.oci / "index.json", dump({**index, "manifests": [*others, entry]}))

    def find(self, image_id: str) -> str:
        """The digest of the image named `image_id`. Raises Missing."""
        for entry in json.loads((self.oci / "index.json").read_bytes())["manifests"]:
            if entry["annotations"][REF_NAME] == image_id:
                return entry["digest"]
        raise Missing(f"Image {image_id} is not in the store of this machine.")

    def forget(self, image_ids: set[str]) -> None:
        """Take these names away; what they named stays."""
        with self._locked():
            index = json.loads((self.oci / "index.json").read_bytes())
            kept = [entry for entry in index["manifests"] if entry["annotations"][REF_NAME] not in image_ids]
            replace_file(self.oci / "index.json", dump({**index, "manifests": kept}))

    def manifest(self, digest: str) -> dict[str, Any]:
        """The manifest with this digest. Raises Missing."""
        return self.document(digest)

    def config(self, digest: str) -> dict[str, Any]:
        """The config of the image whose manifest has this digest. Raises Missing."""
        return self.document(self.manifest(digest)["config"]["digest"])

    # --- layers ---------------------------------------------------------------------------------------------------

    def known(self, key: str) -> Layer | None:
        """The layer that was made of what `key` stands for, if it is still here."""
        try:
            layer = Layer(**json.loads((self.root / "known" / f"{key}.json").read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return layer if self.blob(layer.digest).exists() else None

    def add_layer(self, key: str, tree: Path) -> Layer:
        """Make a layer of the folder `tree`, which must lie on the store's file system and is taken away."""
        blob = tree.with_name(f"{tree.name}.blob")
        layer = write_layer(tree, blob)
        self.adopt(blob, layer.digest)
        self._keep(tree, layer.diff_id)
        replace_file(self.root / "known" / f"{key}.json", dump(asdict(layer)))
        return layer

    def layer(self, layer: Layer) -> Path:
        """The unpacked tree of a layer, made again from its blob where it is gone. Raises Missing."""
        tree = self._tree(layer.diff_id)
        if not tree.exists():
            if not self.blob(layer.digest).exists():
                raise Missing(f"Layer {layer.digest} is not in the store of this machine.")
            with self._scratch() as scratch:
                unpack_layer(self.blob(layer.digest), layer.diff_id, scratch / "tree")
                self._keep(scratch / "tree", layer.diff_id)
        return tree

    def _tree(self, diff_id: str) -> Path:
        return self.root / "layers" / diff_id.removeprefix("sha256:")

    def _keep(self, tree: Path, diff_id: str) -> None:
        for path in tree.rglob("*"):
            if path.is_file():
                path.chmod(path.stat().st_mode & 0o555 | 0o444)
        _move(tree, self._tree(diff_id))

    # --- for the process engine -----------------------------------------------------------------------------------

    def assemble(self, digest: str) -> Assembled:
        """The image with this manifest digest as folders. Made once; the same answer later costs nothing.

        Raises Missing where the image, or a layer of it, is not in the store.
        """
        with self.used():
            return self._assemble(digest)

    def _assemble(self, digest: str) -> Assembled:
        config = self.config(digest)
        layers = self._ours(digest, config)
        root = self.root / "rootfs" / digest.removeprefix("sha256:")
        if not root.exists():
            with self._scratch() as scratch:
                for tree in layers.values():
                    _link_tree(tree / APP, scratch / "root" / APP)
                _move(scratch / "root", root)
        labels = config["config"]["Labels"]
        app_json = layers["app"] / META
        return Assembled(
            app=root / APP,
            site=layers["site"] / SITE if "site" in layers else None,
            runtime=layers["runtime"] / RUNTIME,
            app_json=app_json,
            meta=json.loads(app_json.read_bytes()),
            python=labels["mms.python"],
            platform=f"{config['os']}/{config['architecture']}",
        )

    def _ours(self, digest: str, config: dict[str, Any]) -> dict[str, Path]:
        """The trees of the layers that the builder made, by what they hold; not those of a base image."""
        descriptors = self.manifest(digest)["layers"]
        return {
            descriptor["annotations"][WHAT]: self.layer(Layer(descriptor["digest"], diff_id, descriptor["size"]))
            for descriptor, diff_id in zip(descriptors, config["rootfs"]["diff_ids"], strict=True)
            if WHAT in descriptor.get("annotations", {})
        }

    # --- files ----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Path]:
        """A folder on the store's file system, gone afterwards."""
        folder = Path(tempfile.mkdtemp(prefix=".making-", dir=self.root))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _locked(self) -> AbstractContextManager[bool]:
        return locked(self.root / "store.lock")


def dump(document: Any) -> bytes:
    """JSON with one spelling, so that equal documents have equal digests."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def replace_file(path: Path, data: bytes) -> None:
    """Write `path` so that every reader sees the old content or the new, also after a power cut."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.chmod(name, 0o644)
        os.rename(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _move(tree: Path, target: Path) -> None:
    """Rename a folder to `target`, unless somebody else was faster: what has the same name has the same content."""
    target.parent.mkdir(mode=0o700, exist_ok=True)  # a restored store has its blobs only
    try:
        tree.rename(target)
    except OSError:
        if not target.exists():
            raise


def _link_tree(source: Path, target: Path) -> None:
    """Merge `source` into `target` by hard links. Two layers of one image hold no file twice: the build saw to it."""
    target.mkdir(parents=True, exist_ok=True)
    if source.exists():
        shutil.copytree(source, target, copy_function=os.link, dirs_exist_ok=True)
