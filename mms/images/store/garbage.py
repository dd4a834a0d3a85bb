"""What the store holds and nothing uses: blobs that no image leads to, trees that no service runs, old records.

What killed processes left is none of this: every build clears it away (Store.prepare).

    image row → name or digest → manifest → config, layers → trees

Only who is `alone` in the store looks and takes away: nobody builds an image, or makes folders of one, at that time.
Taking away is renaming, so it is soon over; the disk gets its room back afterwards, while others go on.
"""

import json
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from mms.images.registry import base_image
from mms.images.store.layout import REF_NAME_ANNOTATION, Store

BLOBS = "blobs that no image has"
TREES = "unpacked layers that no service runs"
NOTES = "records of layers that are gone"

Unused = dict[str, list[Path]]  # by kind


@dataclass(frozen=True)
class Retained:
    """What the rows and the settings say is used."""

    images: set[str]  # ids of images: names that stand in the index
    digests: set[str]  # of their manifests
    running: set[str]  # manifests of images that services run, or are about to run
    bases: set[tuple[str, str]]  # base images, each with its platform
    before: float  # Unix time: what is newer is left alone, for a build that is tried again may want it


def find_unused(store: Store, retained: Retained) -> Unused:
    """What can go. For who is alone in the store. Raises NotInStoreError if a used image is damaged:
    its parts are unknown then, so nothing may be deleted."""
    named = {
        entry["digest"]
        for entry in store.index_entries()
        if entry["annotations"][REF_NAME_ANNOTATION] in retained.images
    }
    used = _blobs(store, retained.digests | named) | _base_blobs(store, retained)
    running = _trees(store, retained.running)
    blobs = [path for path in _inside(store.oci / "blobs/sha256") if path.name not in used]
    trees = [path for path in _inside(store.root / "layers", store.root / "rootfs") if path.name not in running]
    gone = {path.name for path in blobs if is_older_than(path, retained.before)}
    found = {BLOBS: blobs, TREES: trees, NOTES: list(_notes(store, retained, gone))}
    return {kind: [path for path in paths if is_older_than(path, retained.before)] for kind, paths in found.items()}


def move_to_trash(store: Store, unused: Unused, retained: Retained, trash: Path) -> Unused:
    """Move it all into the folder `trash`, which lies in the store; where it is now. For who is alone in the store."""
    store.remove_names({entry["annotations"][REF_NAME_ANNOTATION] for entry in store.index_entries()} - retained.images)
    return {kind: [path.rename(trash / f"{kind}-{at}") for at, path in enumerate(unused[kind])] for kind in unused}


def is_older_than(path: Path, before: float) -> bool:
    """Whether it was last changed before then (Unix time). What goes at this moment is somebody's who is at it."""
    try:
        return path.lstat().st_mtime < before
    except FileNotFoundError:
        return False


class DiskSpace:
    """How much room the disk gets back: a file with several links counts with the last of them."""

    def __init__(self) -> None:
        self._links: Counter[tuple[int, int]] = Counter()

    def freed_by(self, path: Path) -> int:
        """Bytes of a file, or of everything below a folder. What goes meanwhile counts as nothing."""
        with suppress(FileNotFoundError):
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode):
                return status.st_blocks * 512 + sum(map(self.freed_by, path.iterdir()))
            return status.st_blocks * 512 if status.st_nlink == 1 or self._is_last(status) else 0
        return 0

    def _is_last(self, status: os.stat_result) -> bool:
        inode = (status.st_dev, status.st_ino)
        self._links[inode] += 1
        return self._links[inode] == status.st_nlink


# --- what leads where ---------------------------------------------------------------------------------------------


def _blobs(store: Store, digests: Iterable[str]) -> set[str]:
    """The names of the blobs of these images."""
    found = set(digests)
    for digest in digests:
        manifest = store.read_manifest(digest)
        found |= {part["digest"] for part in [manifest["config"], *manifest["layers"]]}
    return _names(found)


def _trees(store: Store, digests: Iterable[str]) -> set[str]:
    """The names of the folders of these images."""
    found = set(digests)
    for digest in digests:
        found |= set(store.read_config(digest)["rootfs"]["diff_ids"])
    return _names(found)


def _base_blobs(store: Store, retained: Retained) -> set[str]:
    notes = (base_image.record_path(text, platform, store) for text, platform in retained.bases)
    layers = chain.from_iterable(_read(note).get("layers", []) for note in notes)
    return _names(layer["digest"] for layer in layers)


def _notes(store: Store, retained: Retained, gone: set[str]) -> Iterator[Path]:
    """Of layers whose blobs go or are gone; of base images that no setting names; locks, which nobody trusts for more
    than a day (install.LOCK_MAX_AGE_SECONDS)."""
    bases = {base_image.record_path(text, platform, store) for text, platform in retained.bases}
    for note in _inside(store.root / "known"):
        if note.name.startswith("base-"):
            if note not in bases:
                yield note
            continue
        blob = store.blob_path(_read(note).get("digest", ""))
        if blob.name in gone or not blob.is_file():
            yield note
    yield from _inside(store.root / "cache/locks")


def _inside(*folders: Path) -> list[Path]:
    """What lies in these folders, scratch files left out."""
    return [path for folder in folders for path in folder.glob("*") if not path.name.startswith(".")]


def _read(note: Path) -> dict[str, Any]:
    try:
        return json.loads(note.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}


def _names(digests: Iterable[str]) -> set[str]:
    return {digest.removeprefix("sha256:") for digest in digests}
