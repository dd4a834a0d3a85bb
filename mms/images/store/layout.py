"""The store: all images of this server in one OCI image layout, and their unpacked layers.

    <root>/oci/                  the layout: oci-layout, index.json (one name per image id), blobs/sha256/<hex>
    <root>/layers/<hex>/         the read-only tree of one layer, by diff id, as run by the process engine
    <root>/rootfs/<hex>/         /app of one image, by manifest digest, as hard links into the layers
    <root>/known/<hex>.json      layers by a digest of their inputs, for reuse

Files and folders appear by a rename, so readers never see, and killed builds never leave, partial ones. Only index.json
is replaced, guarded by a lock file. Files damaged by the disk or a power failure are detected by their size or digest,
count as missing, and are created again by the next build that needs them.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mms.images.store.layers import DamagedBlobError, Layer, unpack_layer, write_layer
from mms.system import disk
from mms.system.locks import locked, shared_lock

log = logging.getLogger(__name__)

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
REF_NAME_ANNOTATION = "org.opencontainers.image.ref.name"
# Annotation on the descriptors of our layers in a manifest. Its value is "runtime", "site", "model ..." or "app".
LAYER_ANNOTATION = "mms.layer"
# Paths in the image.
SITE_PATH, RUNTIME_PATH, APP_PATH, APP_JSON_PATH = "opt/mms/site", "opt/mms/runtime", "app", "opt/mms/app.json"
STALE_SECONDS = 3600.0  # delete leftover scratch files after this time
WRITEBACK_SECONDS = 600.0  # the kernel has written files to the disk by then


class NotInStoreError(LookupError):
    """The store doesn't have this blob or image. The message names it."""


@dataclass(frozen=True)
class AssembledImage:
    """An image as read-only folders on this machine."""

    app: Path  # contents of /app
    site: Path | None  # contents of /opt/mms/site; None if the image has no requirements
    runtime: Path  # contents of /opt/mms/runtime
    app_json: Path  # the file /opt/mms/app.json
    meta: dict[str, Any]  # its contents
    python: str  # "3.11"
    platform: str  # "linux/amd64"


class Store:
    """The store below the folder `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.oci = root / "oci"
        self._blobs = self.oci / "blobs" / "sha256"
        self._index = self.oci / "index.json"

    def prepare(self, exclusive: bool = False) -> None:
        """Create missing folders and an empty layout, and delete stale leftovers of killed processes.

        `exclusive`: no other process uses the store, so delete all leftovers, whatever their age.
        """
        for folder in (self._blobs, self.root / "layers", self.root / "rootfs", self.root / "known"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._clear(0 if exclusive else STALE_SECONDS)
        with self._locked():
            if not self._index.exists():
                self._write_index([])
            if not (self.oci / "oci-layout").exists():
                replace_file(self.oci / "oci-layout", dump({"imageLayoutVersion": "1.0.0"}))

    # --- locks ----------------------------------------------------------------------------------------------------

    def in_use(self) -> AbstractContextManager[None]:
        """Prevent deletions while using blobs that no image refers to yet. A build holds this for its entire duration.

        Waits while another process holds `exclusive`, which is always brief, since a rollout would wait.
        """
        return shared_lock(self.root / "used.lock")

    def exclusive(self) -> AbstractContextManager[bool]:
        """Prevent all other use of the store, for deletions. Yield False if it is in use."""
        return locked(self.root / "used.lock", wait=False)

    def packages_in_use(self) -> AbstractContextManager[None]:
        """Prevent the removal of cached packages. A build holds this for its entire duration."""
        return shared_lock(self.root / "packages.lock")

    def packages_exclusive(self) -> AbstractContextManager[bool]:
        """Prevent builds while cached packages are removed, which takes seconds. Yield False if one is running."""
        return locked(self.root / "packages.lock", wait=False)

    # --- blobs ----------------------------------------------------------------------------------------------------

    def blob_path(self, digest: str) -> Path:
        """Return the path of the blob, whether or not it exists."""
        return self._blobs / digest.removeprefix("sha256:")

    def has_blob(self, digest: str, size: int) -> bool:
        """Return True if the blob exists with this size."""
        try:
            return self.blob_path(digest).stat().st_size == size
        except FileNotFoundError:
            return False

    def add_blob(self, path: Path, digest: str) -> None:
        """Move the complete file `path` to the store. The fsync guarantees its content after a power failure."""
        path.chmod(0o444)
        disk.fsync(path)
        path.rename(self.blob_path(digest))

    def add_json(self, document: dict[str, Any], media_type: str) -> dict[str, Any]:
        """Store a JSON document and return its descriptor."""
        data = dump(document)
        digest = digest_of(data)
        if not self._read_verified(digest):
            replace_file(self.blob_path(digest), data)
        return _descriptor(digest, len(data), media_type)

    def read_json(self, digest: str) -> dict[str, Any]:
        """Return the JSON blob with this digest. Raises NotInStoreError, also if the blob is damaged."""
        data = self._read_verified(digest)
        if data is None:
            raise NotInStoreError(f"Blob {digest} is missing or damaged on this server. Build the image again.")
        return dict(json.loads(data))

    def _read_verified(self, digest: str) -> bytes | None:
        """Return the content of a small blob; None if it is missing or doesn't match its digest."""
        try:
            data = self.blob_path(digest).read_bytes()
        except FileNotFoundError:
            return None
        return data if digest_of(data) == digest else None

    # --- images ---------------------------------------------------------------------------------------------------

    def set_name(self, image_id: str, descriptor: dict[str, Any]) -> None:
        """Name the stored manifest `descriptor` by `image_id`, replacing an earlier one with that name."""
        with self._locked():
            others = [entry for entry in self.index_entries() if entry["annotations"][REF_NAME_ANNOTATION] != image_id]
            self._write_index([*others, _entry(image_id, descriptor)])

    def restore_names(self, images: Mapping[str, str]) -> None:
        """Restore names lost with a damaged index, for those `images` (digests by id) whose manifests exist."""
        with self._locked():
            entries = self.index_entries()
            lost = images.keys() - {entry["annotations"][REF_NAME_ANNOTATION] for entry in entries}
            restored = []
            for image_id in sorted(lost):
                blob = self.blob_path(images[image_id])
                if blob.exists():
                    descriptor = _descriptor(images[image_id], blob.stat().st_size, MANIFEST_TYPE)
                    restored.append(_entry(image_id, descriptor))
            if restored:
                self._write_index([*entries, *restored])

    def find_digest(self, image_id: str) -> str:
        """Return the digest of the image named `image_id`. Raises NotInStoreError."""
        for entry in self.index_entries():
            if entry["annotations"][REF_NAME_ANNOTATION] == image_id:
                return str(entry["digest"])
        raise NotInStoreError(f"Image {image_id} is not in this server's store. Build it again.")

    def remove_names(self, image_ids: set[str]) -> None:
        """Remove these names from the index, but not the blobs."""
        with self._locked():
            entries = self.index_entries()
            self._write_index(
                [entry for entry in entries if entry["annotations"][REF_NAME_ANNOTATION] not in image_ids]
            )

    def index_entries(self) -> list[dict[str, Any]]:
        """Return the entries of index.json; none if it is damaged.

        A damaged index must not fail a build; the next start of the site restores the names (see `restore_names`).
        """
        try:
            entries = json.loads(self._index.read_bytes())["manifests"]
            return [entry for entry in entries if entry["digest"] and entry["annotations"][REF_NAME_ANNOTATION]]
        except (FileNotFoundError, ValueError, LookupError, TypeError) as error:
            log.warning("%s is damaged and will be rebuilt: %r", self._index, error)
            return []

    def _write_index(self, entries: list[dict[str, Any]]) -> None:
        replace_file(self._index, dump({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries}))

    def read_manifest(self, digest: str) -> dict[str, Any]:
        """Return the manifest with this digest. Raises NotInStoreError."""
        return self.read_json(digest)

    def read_config(self, digest: str) -> dict[str, Any]:
        """Return the config of the image whose manifest has this digest. Raises NotInStoreError."""
        return self.read_json(self.read_manifest(digest)["config"]["digest"])

    # --- layers ---------------------------------------------------------------------------------------------------

    def find_layer(self, key: str) -> Layer | None:
        """Return the layer with this key, if it is still in the store."""
        try:
            layer = Layer(**json.loads((self.root / "known" / f"{key}.json").read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return layer if self.has_blob(layer.digest, layer.size) else None

    def add_layer(self, key: str, tree: Path) -> Layer:
        """Make a layer from the folder `tree`, which must be on the store's file system, and move the folder."""
        blob = tree.with_name(f"{tree.name}.blob")
        layer = write_layer(tree, blob)
        self.add_blob(blob, layer.digest)
        self._store_tree(tree, layer.diff_id)
        replace_file(self.root / "known" / f"{key}.json", dump(asdict(layer)))
        return layer

    def layer_tree(self, layer: Layer) -> Path:
        """Return the tree of a layer, unpacking its blob if necessary. Raises NotInStoreError."""
        tree = self._tree(layer.diff_id)
        if not tree.exists():
            self._unpack(layer)
        return tree

    def _unpack(self, layer: Layer) -> None:
        if not self.has_blob(layer.digest, layer.size):
            raise NotInStoreError(f"Layer {layer.digest} is missing or damaged on this server. Build the image again.")
        with self.scratch_folder() as scratch:
            try:
                unpack_layer(self.blob_path(layer.digest), layer.diff_id, scratch / "tree")
            except DamagedBlobError as error:
                self.blob_path(layer.digest).unlink()  # so that the next build creates it again
                raise NotInStoreError(f"Layer {layer.digest} is damaged: {error} Build the image again.") from None
            self._store_tree(scratch / "tree", layer.diff_id)

    def remove_recent_trees(self) -> None:
        """Delete the newest trees after a power failure, which may have truncated their files.

        `layer_tree` unpacks them again. Blobs are synced to the disk before they get their names, but syncing trees as
        well would take as long again. The caller must hold `exclusive`.
        """
        created = {path: path.stat().st_ctime for name in ("layers", "rootfs") for path in (self.root / name).iterdir()}
        newest = max(created.values(), default=0.0)  # the power failed after that
        for tree in (path for path, time_created in created.items() if time_created > newest - WRITEBACK_SECONDS):
            shutil.rmtree(tree)

    def _tree(self, diff_id: str) -> Path:
        return self.root / "layers" / diff_id.removeprefix("sha256:")

    def _store_tree(self, tree: Path, diff_id: str) -> None:
        for path in tree.rglob("*"):
            if path.is_file():
                path.chmod(path.stat().st_mode & 0o555 | 0o444)
        _open_folders(tree)
        _move(tree, self._tree(diff_id))

    # --- for the process engine -----------------------------------------------------------------------------------

    def assemble(self, digest: str) -> AssembledImage:
        """Return the image with this manifest digest as folders. They are created once and then reused.

        Raises NotInStoreError if the image or one of its layers is missing.
        """
        with self.in_use():
            return self._assemble(digest)

    def _assemble(self, digest: str) -> AssembledImage:
        config = self.read_config(digest)
        layers = self._built_layers(digest, config)
        root = self.root / "rootfs" / digest.removeprefix("sha256:")
        if not root.exists():
            with self.scratch_folder() as scratch:
                for tree in layers.values():
                    _link_tree(tree / APP_PATH, scratch / "root" / APP_PATH)
                _move(scratch / "root", root)
        for tree in (root, *layers.values()):
            _open_folders(tree)
        labels = config["config"]["Labels"]
        app_json = layers["app"] / APP_JSON_PATH
        return AssembledImage(
            app=root / APP_PATH,
            site=layers["site"] / SITE_PATH if "site" in layers else None,
            runtime=layers["runtime"] / RUNTIME_PATH,
            app_json=app_json,
            meta=json.loads(app_json.read_bytes()),
            python=labels["mms.python"],
            platform=f"{config['os']}/{config['architecture']}",
        )

    def _built_layers(self, digest: str, config: dict[str, Any]) -> dict[str, Path]:
        """Return the trees of the layers that the builder made, by content, without those of a base image."""
        descriptors = self.read_manifest(digest)["layers"]
        trees = {}
        for descriptor, diff_id in zip(descriptors, config["rootfs"]["diff_ids"], strict=True):
            if kind := descriptor.get("annotations", {}).get(LAYER_ANNOTATION):
                trees[kind] = self.layer_tree(Layer(descriptor["digest"], diff_id, descriptor["size"]))
        return trees

    # --- files ----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def scratch_folder(self) -> Iterator[Path]:
        """Create a temporary folder on the store's file system, locked while in use.

        An unlocked one is a leftover of a killed process.
        """
        self._clear(STALE_SECONDS)
        with self._locked():
            folder = Path(tempfile.mkdtemp(prefix=".making-", dir=self.root))
            lock = os.open(folder, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)

    def _clear(self, age: float) -> None:
        """Delete leftovers of killed processes: unlocked folders, and new files older than `age` seconds.

        Another process may delete the same files at the same time.
        """
        with contextlib.ExitStack() as stack:
            with self._locked():  # a new folder is locked before this lock is released
                leftovers = [folder for folder in self.root.glob(".making-*") if _lock(folder, stack)]
            for folder in leftovers:  # they can be large, so delete them without the lock
                shutil.rmtree(folder, ignore_errors=True)
        for folder in (self.oci, self._blobs, self.root / "known", self.root / "cache" / "locks"):
            for path in folder.glob(".new-*"):
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - path.stat().st_mtime >= age:  # writing one takes milliseconds
                        path.unlink()

    def _locked(self) -> AbstractContextManager[bool]:
        return locked(self.root / "store.lock")


def _lock(folder: Path, stack: contextlib.ExitStack) -> bool:
    """Hold the folder's lock until `stack` closes. Return False if it is held or the folder is gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return False
    stack.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def dump(document: Any) -> bytes:
    """Return canonical JSON: equal documents have equal digests."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def digest_of(data: bytes) -> str:
    """Return the digest of `data` in OCI notation."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _descriptor(digest: str, size: int, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size}


def _entry(image_id: str, descriptor: dict[str, Any]) -> dict[str, Any]:
    return {**descriptor, "annotations": {REF_NAME_ANNOTATION: image_id}}


def replace_file(path: Path, data: bytes) -> None:
    """Write `path` atomically: readers see the old or the new content, also after a power failure."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        temporary.chmod(0o644)
        temporary.rename(path)
    except BaseException:
        temporary.unlink()
        raise


def _move(tree: Path, target: Path) -> None:
    """Rename a folder to `target`, unless it exists already: the same name means the same content."""
    target.parent.mkdir(mode=0o700, exist_ok=True)  # a restored store has only blobs
    try:
        tree.rename(target)
    except OSError:
        if not target.exists():
            raise


def _open_folders(tree: Path) -> None:
    """Make `tree` readable by all users: a service may run as a different user than the site.

    The folders above `tree` remain closed. Trees of earlier releases are opened at their next use; the topmost folder
    comes last, so if it is open, all are.
    """
    if stat.S_IMODE(tree.stat().st_mode) == 0o755:
        return
    for folder, _, _ in os.walk(tree, topdown=False):
        Path(folder).chmod(0o755)


def _link_tree(source: Path, target: Path) -> None:
    """Merge `source` into `target` by hard links. The build ensures that no two layers have the same path."""
    target.mkdir(parents=True, exist_ok=True)
    if source.exists():
        shutil.copytree(source, target, copy_function=os.link, dirs_exist_ok=True)
