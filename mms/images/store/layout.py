"""The store: every image of this server in one OCI image layout, and its layers once more, unpacked.

    <root>/oci/                  the layout: oci-layout, index.json (one name per image id), blobs/sha256/<hex>
    <root>/layers/<hex>/         the tree of one layer, by diff id, read-only: what the process engine runs
    <root>/rootfs/<hex>/         /app of one image, by manifest digest, hard links into the layers
    <root>/known/<hex>.json      layers by what they were made of, so that nothing is made twice

Everything appears by a rename, so a reader, or a build that is killed, never meets or leaves half of anything. Only
index.json is changed in place of an older one; a lock file guards that. What a disk has damaged all the same (a power
cut, a fault) is noticed by its size or digest, counts as missing, and is made again by the next build that needs it.
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
# What a layer of ours holds ("runtime", "site", "model …", "app"): an annotation of its descriptor in the manifest.
LAYER_ANNOTATION = "mms.layer"
# Paths in the image.
SITE_PATH, RUNTIME_PATH, APP_PATH, APP_JSON_PATH = "opt/mms/site", "opt/mms/runtime", "app", "opt/mms/app.json"
STALE_SECONDS = 3600.0
WRITEBACK_SECONDS = 600.0  # seconds after which any system has written what it was given


class NotInStoreError(LookupError):
    """The store does not hold this. The text says what."""


@dataclass(frozen=True)
class AssembledImage:
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
        self._index = self.oci / "index.json"

    def prepare(self, exclusive: bool = False) -> None:
        """Make the folders and an empty layout, where they are missing; clear what the killed left behind, all of it
        where nobody else uses the store (`alone`)."""
        for folder in (self._blobs, self.root / "layers", self.root / "rootfs", self.root / "known"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._clear(0 if exclusive else STALE_SECONDS)
        with self._locked():
            if not self._index.exists():
                self._write_index([])
            if not (self.oci / "oci-layout").exists():
                replace_file(self.oci / "oci-layout", dump({"imageLayoutVersion": "1.0.0"}))

    # --- who is here ----------------------------------------------------------------------------------------------

    def in_use(self) -> AbstractContextManager[None]:
        """Held by who relies on something in the store that no image refers to yet, a build for its whole life:
        nothing is taken away meanwhile. Waits while somebody is `alone`, which is never for long."""
        return shared_lock(self.root / "used.lock")

    def exclusive(self) -> AbstractContextManager[bool]:
        """Held by who takes things away: nobody uses the store meanwhile. Yields False, at once, if somebody does."""
        return locked(self.root / "used.lock", wait=False)

    # --- blobs ----------------------------------------------------------------------------------------------------

    def blob_path(self, digest: str) -> Path:
        """Where the blob lies, or would."""
        return self._blobs / digest.removeprefix("sha256:")

    def has_blob(self, digest: str, size: int) -> bool:
        """Whether the blob is there, as long as it has to be."""
        try:
            return self.blob_path(digest).stat().st_size == size
        except FileNotFoundError:
            return False

    def add_blob(self, path: Path, digest: str) -> None:
        """Move the complete file `path` into the store. What has the name has the content, also after a power cut."""
        path.chmod(0o444)
        disk.fsync(path)
        path.rename(self.blob_path(digest))

    def add_json(self, document: dict[str, Any], media_type: str) -> dict[str, Any]:
        """Store a JSON document; its descriptor."""
        data = dump(document)
        digest = digest_of(data)
        if not self._read_verified(digest):
            replace_file(self.blob_path(digest), data)
        return _descriptor(digest, len(data), media_type)

    def read_json(self, digest: str) -> dict[str, Any]:
        """The JSON blob with this digest. Raises NotInStoreError, also where it is damaged."""
        data = self._read_verified(digest)
        if data is None:
            raise NotInStoreError(f"{digest} is not in the store of this machine, or damaged.")
        return json.loads(data)

    def _read_verified(self, digest: str) -> bytes | None:
        """The content of a small blob; None where it is missing or another than its digest says."""
        try:
            data = self.blob_path(digest).read_bytes()
        except FileNotFoundError:
            return None
        return data if digest_of(data) == digest else None

    # --- images ---------------------------------------------------------------------------------------------------

    def set_name(self, image_id: str, descriptor: dict[str, Any]) -> None:
        """Make the stored manifest `descriptor` findable as `image_id`, in place of what had that name."""
        with self._locked():
            others = [entry for entry in self.index_entries() if entry["annotations"][REF_NAME_ANNOTATION] != image_id]
            self._write_index([*others, _entry(image_id, descriptor)])

    def restore_names(self, images: Mapping[str, str]) -> None:
        """Give the images (digests by image id) whose manifests are here the names that a damaged index has lost."""
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
        """The digest of the image named `image_id`. Raises NotInStoreError."""
        for entry in self.index_entries():
            if entry["annotations"][REF_NAME_ANNOTATION] == image_id:
                return entry["digest"]
        raise NotInStoreError(f"Image {image_id} is not in the store of this machine.")

    def remove_names(self, image_ids: set[str]) -> None:
        """Take these names away; what they named stays."""
        with self._locked():
            entries = self.index_entries()
            self._write_index(
                [entry for entry in entries if entry["annotations"][REF_NAME_ANNOTATION] not in image_ids]
            )

    def index_entries(self) -> list[dict[str, Any]]:
        """What index.json lists. One that cannot be read lists nothing: a build must not fail for it, and the next
        start of the site brings the names back (see `name_all`)."""
        try:
            entries = json.loads(self._index.read_bytes())["manifests"]
            return [entry for entry in entries if entry["digest"] and entry["annotations"][REF_NAME_ANNOTATION]]
        except (FileNotFoundError, ValueError, LookupError, TypeError) as error:
            log.warning("%s is damaged and is begun anew: %r", self._index, error)
            return []

    def _write_index(self, entries: list[dict[str, Any]]) -> None:
        replace_file(self._index, dump({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries}))

    def read_manifest(self, digest: str) -> dict[str, Any]:
        """The manifest with this digest. Raises NotInStoreError."""
        return self.read_json(digest)

    def read_config(self, digest: str) -> dict[str, Any]:
        """The config of the image whose manifest has this digest. Raises NotInStoreError."""
        return self.read_json(self.read_manifest(digest)["config"]["digest"])

    # --- layers ---------------------------------------------------------------------------------------------------

    def find_layer(self, key: str) -> Layer | None:
        """The layer that was made of what `key` stands for, if it is still here."""
        try:
            layer = Layer(**json.loads((self.root / "known" / f"{key}.json").read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return layer if self.has_blob(layer.digest, layer.size) else None

    def add_layer(self, key: str, tree: Path) -> Layer:
        """Make a layer of the folder `tree`, which must lie on the store's file system and is taken away."""
        blob = tree.with_name(f"{tree.name}.blob")
        layer = write_layer(tree, blob)
        self.add_blob(blob, layer.digest)
        self._keep(tree, layer.diff_id)
        replace_file(self.root / "known" / f"{key}.json", dump(asdict(layer)))
        return layer

    def layer_tree(self, layer: Layer) -> Path:
        """The unpacked tree of a layer, made again from its blob where it is gone. Raises NotInStoreError."""
        tree = self._tree(layer.diff_id)
        if not tree.exists():
            self._unpack(layer)
        return tree

    def _unpack(self, layer: Layer) -> None:
        if not self.has_blob(layer.digest, layer.size):
            raise NotInStoreError(f"Layer {layer.digest} is not in the store of this machine, or damaged.")
        with self.scratch_folder() as scratch:
            try:
                unpack_layer(self.blob_path(layer.digest), layer.diff_id, scratch / "tree")
            except DamagedBlobError as error:
                self.blob_path(layer.digest).unlink()  # so that the next build makes it again
                raise NotInStoreError(f"Layer {layer.digest} is damaged. {error}") from None
            self._keep(scratch / "tree", layer.diff_id)

    def remove_recent_trees(self) -> None:
        """Remove the trees made last, for `layer` to unpack again: a machine that lost its power may have written only
        part of them. (Blobs are on the disk before they get their names; waiting for trees as well would take as long
        again.) Only while nothing uses them."""
        made = {path: path.stat().st_ctime for name in ("layers", "rootfs") for path in (self.root / name).iterdir()}
        newest = max(made.values(), default=0.0)  # the power went later than that
        for tree in (path for path, when in made.items() if when > newest - WRITEBACK_SECONDS):
            shutil.rmtree(tree)

    def _tree(self, diff_id: str) -> Path:
        return self.root / "layers" / diff_id.removeprefix("sha256:")

    def _keep(self, tree: Path, diff_id: str) -> None:
        for path in tree.rglob("*"):
            if path.is_file():
                path.chmod(path.stat().st_mode & 0o555 | 0o444)
        _open_folders(tree)
        _move(tree, self._tree(diff_id))

    # --- for the process engine -----------------------------------------------------------------------------------

    def assemble(self, digest: str) -> AssembledImage:
        """The image with this manifest digest as folders. Made once; the same answer later costs nothing.

        Raises NotInStoreError where the image, or a layer of it, is not in the store.
        """
        with self.in_use():
            return self._assemble(digest)

    def _assemble(self, digest: str) -> AssembledImage:
        config = self.read_config(digest)
        layers = self._ours(digest, config)
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

    def _ours(self, digest: str, config: dict[str, Any]) -> dict[str, Path]:
        """The trees of the layers that the builder made, by what they hold; not those of a base image."""
        descriptors = self.read_manifest(digest)["layers"]
        trees = {}
        for descriptor, diff_id in zip(descriptors, config["rootfs"]["diff_ids"], strict=True):
            if kind := descriptor.get("annotations", {}).get(LAYER_ANNOTATION):
                trees[kind] = self.layer_tree(Layer(descriptor["digest"], diff_id, descriptor["size"]))
        return trees

    # --- files ----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def scratch_folder(self) -> Iterator[Path]:
        """A folder on the store's file system, gone afterwards. It is locked meanwhile: one that is not is a dead
        process's."""
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
        """Remove what killed processes left behind: folders without a lock, new files of this age. What goes at this
        moment is somebody's who is at it."""
        with contextlib.ExitStack() as stack:
            with self._locked():  # who makes a folder locks it before it lets go of this
                dead = [folder for folder in self.root.glob(".making-*") if _lock(folder, stack)]
            for folder in dead:  # they can be large: nobody waits for that
                shutil.rmtree(folder, ignore_errors=True)
        for folder in (self.oci, self._blobs, self.root / "known", self.root / "cache" / "locks"):
            for path in folder.glob(".new-*"):
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - path.stat().st_mtime >= age:  # it takes milliseconds to write one
                        path.unlink()

    def _locked(self) -> AbstractContextManager[bool]:
        return locked(self.root / "store.lock")


def _lock(folder: Path, stack: contextlib.ExitStack) -> bool:
    """Hold the folder's lock until the stack ends, if nobody else does and it is still there."""
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
    """JSON with one spelling, so that equal documents have equal digests."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _descriptor(digest: str, size: int, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size}


def _entry(image_id: str, descriptor: dict[str, Any]) -> dict[str, Any]:
    return {**descriptor, "annotations": {REF_NAME_ANNOTATION: image_id}}


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


def _open_folders(tree: Path) -> None:
    """Let every user who gets as far as `tree` read it: a service may run as a user other than the site's, and sees
    of the folders above `tree` nothing. Trees made by earlier releases are opened when they are next used; the
    topmost folder is the last, so an open one means that all are."""
    if stat.S_IMODE(tree.stat().st_mode) == 0o755:
        return
    for folder, _, _ in os.walk(tree, topdown=False):
        os.chmod(folder, 0o755)  # noqa: S103 - below folders that are closed


def _link_tree(source: Path, target: Path) -> None:
    """Merge `source` into `target` by hard links. Two layers of one image hold no file twice: the build saw to it."""
    target.mkdir(parents=True, exist_ok=True)
    if source.exists():
        shutil.copytree(source, target, copy_function=os.link, dirs_exist_ok=True)
