"""Unused files of the store: blobs of no image, trees that no service runs, and stale records.

Leftovers of killed processes are not included: every build removes them (Store.prepare).

    image row → name or digest → manifest → config, layers → trees

Callers hold `Store.exclusive`, so no image is built or unpacked at the same time. Unused files are renamed first, which
is fast, and deleted after the lock has been released.
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

BLOBS = "blobs not used by an image"
TREES = "unpacked layers not used by a service"
RECORDS = "records of deleted layers"

Unused = dict[str, list[Path]]  # by kind


@dataclass(frozen=True)
class Retained:
    """Everything in use, according to the rows and the settings."""

    images: set[str]  # ids of images: names in the index
    digests: set[str]  # of the images' manifests
    running: set[str]  # digests of the images that services run, or are about to run
    bases: set[tuple[str, str]]  # base images, each with its platform
    before: float  # Unix time; newer files are retained, because a retried build may need them


def find_unused(store: Store, retained: Retained) -> Unused:
    """Return the unused files by kind. The caller must hold `Store.exclusive`.

    Raises NotInStoreError if a used image is damaged: its parts are unknown then, so nothing may be deleted.
    """
    named = {
        entry["digest"]
        for entry in store.index_entries()
        if entry["annotations"][REF_NAME_ANNOTATION] in retained.images
    }
    used = _blobs(store, retained.digests | named) | _base_blobs(store, retained)
    running = _trees(store, retained.running)
    blobs = [path for path in _inside(store.oci / "blobs/sha256") if path.name not in used]
    trees = [path for path in _inside(store.root / "layers", store.root / "rootfs") if path.name not in running]
    unused_blobs = {path.name for path in blobs if is_older_than(path, retained.before)}
    unused = {BLOBS: blobs, TREES: trees, RECORDS: list(_records(store, retained, unused_blobs))}
    return {kind: [path for path in paths if is_older_than(path, retained.before)] for kind, paths in unused.items()}


def move_to_trash(store: Store, unused: Unused, retained: Retained, trash: Path) -> Unused:
    """Move the unused files to `trash`, a folder in the store, and return their new paths.

    The caller must hold `Store.exclusive`.
    """
    store.remove_names({entry["annotations"][REF_NAME_ANNOTATION] for entry in store.index_entries()} - retained.images)
    return {kind: [path.rename(trash / f"{kind}-{at}") for at, path in enumerate(unused[kind])] for kind in unused}


def is_older_than(path: Path, before: float) -> bool:
    """Return True if the file was last modified before this Unix time; False if another process deleted it."""
    try:
        return path.lstat().st_mtime < before
    except FileNotFoundError:
        return False


class DiskSpace:
    """Disk space freed by deleting files. A file with several hard links counts once all of them are deleted."""

    def __init__(self) -> None:
        self._links: Counter[tuple[int, int]] = Counter()

    def freed_by(self, path: Path) -> int:
        """Return the bytes freed by deleting a file, or a folder with its contents. Missing files count as 0."""
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


# --- references ---------------------------------------------------------------------------------------------------


def _blobs(store: Store, digests: Iterable[str]) -> set[str]:
    """Return the names of the blobs of these images."""
    found = set(digests)
    for digest in digests:
        manifest = store.read_manifest(digest)
        found |= {part["digest"] for part in [manifest["config"], *manifest["layers"]]}
    return _names(found)


def _trees(store: Store, digests: Iterable[str]) -> set[str]:
    """Return the names of the unpacked trees of these images."""
    found = set(digests)
    for digest in digests:
        found |= set(store.read_config(digest)["rootfs"]["diff_ids"])
    return _names(found)


def _base_blobs(store: Store, retained: Retained) -> set[str]:
    """Return the names of the blobs of the configured base images."""
    records = (base_image.record_path(text, platform, store) for text, platform in retained.bases)
    layers = chain.from_iterable(_read(record).get("layers", []) for record in records)
    return _names(layer["digest"] for layer in layers)


def _records(store: Store, retained: Retained, gone: set[str]) -> Iterator[Path]:
    """Yield the records of deleted layers and unused base images, and all cached requirement locks.

    Locks are valid only for a day (install.LOCK_MAX_AGE_SECONDS).
    """
    bases = {base_image.record_path(text, platform, store) for text, platform in retained.bases}
    for record in _inside(store.root / "known"):
        if record.name.startswith("base-"):
            if record not in bases:
                yield record
            continue
        blob = store.blob_path(_read(record).get("digest", ""))
        if blob.name in gone or not blob.is_file():
            yield record
    yield from _inside(store.root / "cache/locks")


def _inside(*folders: Path) -> list[Path]:
    """Return the files and folders in these folders, without scratch files."""
    return [path for folder in folders for path in folder.glob("*") if not path.name.startswith(".")]


def _read(record: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(record.read_bytes()))
    except (FileNotFoundError, TypeError, ValueError):
        return {}


def _names(digests: Iterable[str]) -> set[str]:
    return {digest.removeprefix("sha256:") for digest in digests}
