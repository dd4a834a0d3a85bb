"""Paths of assets and models in /app, and detection of conflicts.

The rules (for users: docs/deploy/driver.md):

- An asset is placed at its id and at the base name of its URL. An id without an extension gets that of the URL.
- A model is placed at the base name of its URL and below models/<name>/<version>/.
- Unpacked files retain their paths in the archive: assets below /app, models below /app and models/<name>/<version>/.
- A model's file whose path in /app is needed by another model, an asset or the driver is only below
  models/<name>/<version>/.
- An asset whose base name is needed by another asset is only at its id. All other conflicts are errors.
"""

import os
import shutil
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mms.images.sources.fetch import base_name

Clashes = dict[PurePosixPath, str]  # paths in /app that an item can't have, with the owner of the other item


class PathConflictError(Exception):
    """Two items need the same path. The message names both."""


class PathRegistry:
    """The paths in /app that are in use, and their owners."""

    def __init__(self) -> None:
        self._files: dict[PurePosixPath, str] = {}
        self._folders: dict[PurePosixPath, str] = {}

    def register(self, path: PurePosixPath, owner: str) -> None:
        """Record that `owner` has a file at `path`. Raises PathConflictError."""
        if conflict := self.find_conflict(path):
            raise PathConflictError(_conflict_message(*conflict, owner))
        for folder in path.parents:
            self._folders.setdefault(folder, owner)
        self._files[path] = owner

    def find_conflict(self, path: PurePosixPath) -> tuple[PurePosixPath, str] | None:
        """Return the path in use, and its owner, that prevents a file at `path`; None if there is none."""
        for part in (*path.parents, path):
            if part in self._files:
                return part, self._files[part]
        return (path, self._folders[path]) if path in self._folders else None

    def add_folder(self, path: PurePosixPath, owner: str) -> None:
        """Record that `owner` has an empty folder at `path`. Folders can be shared."""
        for folder in (path, *path.parents):
            self._folders.setdefault(folder, owner)

    def file_owner(self, path: PurePosixPath) -> str:
        """Return the owner of a file at `path` or at one of its parents; "" if there is none."""
        return next((self._files[part] for part in (path, *path.parents) if part in self._files), "")


def _conflict_message(path: PurePosixPath, first: str, second: str) -> str:
    return f"Two items need the path /app/{path}: {first} and {second}. Rename one of them."


def asset_paths(asset_id: str, url: str) -> list[PurePosixPath]:
    """Return the paths of an asset that isn't unpacked, the one made from its id first."""
    name = base_name(url)
    by_id = asset_id if PurePosixPath(asset_id).suffix else asset_id + _extension(name)
    return [PurePosixPath(text) for text in dict.fromkeys([by_id, name]) if text]


def model_folder(name: str, version: int) -> PurePosixPath:
    """Return the folder of a model version."""
    return PurePosixPath("models", name, str(version))


def _extension(name: str) -> str:
    """Return the extension of a file name, such as ".py" or ".tar.gz"; "" if it has none."""
    suffixes = PurePosixPath(name).suffixes
    return "".join(suffixes[-2:]) if suffixes[-2:-1] == [".tar"] else "".join(suffixes[-1:])


@dataclass(frozen=True)
class Source:
    """A downloaded item: a file, or the folder it was unpacked to."""

    owner: str  # its name in messages: "model iris 3", "asset score"
    path: Path

    def files(self) -> list[tuple[Path, PurePosixPath]]:
        """Return all files with their relative paths; a single file has the path "."."""
        if self.path.is_file():
            return [(self.path, PurePosixPath("."))]
        found = sorted(path for path in self.path.rglob("*") if path.is_file())
        return [(path, PurePosixPath(path.relative_to(self.path))) for path in found]


@dataclass(frozen=True)
class Placement:
    """A source and its paths in /app: of the file itself, or of the folder with its files."""

    source: Source
    targets: list[PurePosixPath]

    def files(self) -> list[PurePosixPath]:
        """Return the paths of all files in /app."""
        return [target / below for target in self.targets for _, below in self.source.files()]

    def empty_folders(self) -> list[PurePosixPath]:
        """Return the paths of all empty folders in /app."""
        return [target / folder for target in self.targets for folder in _empty_folders(self.source.path)]


def find_clashes(models: list[Placement], assets: list[Placement]) -> dict[str, Clashes]:
    """Return the paths that items can't have: for each item's owner, paths with the owner of the other item.

    An asset has its first target in any case, and a model the second, its own folder: conflicts between these raise
    PathConflictError. The other targets of assets take precedence over those of models.
    """
    registry = PathRegistry()
    for item in [*(_part(model, 1) for model in models), *(_part(asset, 0) for asset in assets)]:
        for path in item.files():
            registry.register(path, item.source.owner)
        for path in item.empty_folders():
            registry.add_folder(path, item.source.owner)
    aliases = [_part(asset, 1) for asset in assets]
    clashes = _find_clashes(aliases, registry)
    for alias in aliases:
        # Also the paths that several assets need and none gets: no model gets them either.
        for path in alias.files():
            if not registry.find_conflict(path):
                registry.register(path, alias.source.owner)
    return clashes | _find_clashes([_part(model, 0) for model in models], registry)


def _part(item: Placement, number: int) -> Placement:
    """Return the item with only one of its targets, or none if it has fewer."""
    return Placement(item.source, item.targets[number : number + 1])


def _find_clashes(items: list[Placement], registry: PathRegistry) -> dict[str, Clashes]:
    wanted = _WantedPaths(items)
    return {owner: wanted.clashes(owner, registry) for owner in wanted.files}


class _WantedPaths:
    """The paths that items would have if no other item needed them, and the owners of each."""

    def __init__(self, items: list[Placement]) -> None:
        self.files = {item.source.owner: item.files() for item in items}
        self.empty_folders = {item.source.owner: item.empty_folders() for item in items}
        self._by_file: dict[PurePosixPath, list[str]] = defaultdict(list)
        self._by_folder: dict[PurePosixPath, list[str]] = defaultdict(list)
        for owner, files in self.files.items():
            for path in files:
                self._by_file[path].append(owner)
            folders = {folder for path in files for folder in path.parents}
            for path in {part for folder in self.empty_folders[owner] for part in (folder, *folder.parents)} | folders:
                self._by_folder[path].append(owner)

    def clashes(self, owner: str, registry: PathRegistry) -> Clashes:
        """Return the paths of `owner` that another item needs, also one in `registry`, with that other owner."""
        found: Clashes = {}
        for path in self.files[owner]:
            conflict = registry.find_conflict(path)
            if other := conflict[1] if conflict else self._other_owner(path, owner, self._by_folder.get(path, [])):
                found[path] = other
        for path in self.empty_folders[owner]:
            if other := registry.file_owner(path) or self._other_owner(path, owner, []):
                found[path] = other
        return found

    def _other_owner(self, path: PurePosixPath, owner: str, folder_owners: list[str]) -> str:
        file_owners = [other for part in (path, *path.parents) for other in self._by_file.get(part, ())]
        return next((other for other in (*file_owners, *folder_owners) if other != owner), "")


def link_files(
    source: Source,
    targets: list[PurePosixPath],
    app: Path,
    paths: PathRegistry,
    skip: Collection[PurePosixPath] = frozenset(),
) -> None:
    """Hard-link the source's files at every target below the folder `app`, except at the paths in `skip`.

    Raises PathConflictError.
    """
    for file, below in source.files():
        for target in targets:
            path = target / below
            if path in skip:
                continue
            paths.register(path, source.owner)
            (app / path).parent.mkdir(parents=True, exist_ok=True)
            os.link(file, app / path)
    for folder in _empty_folders(source.path):
        for target in targets:
            if target / folder not in skip:
                (app / target / folder).mkdir(parents=True, exist_ok=True)


def _empty_folders(root: Path) -> list[Path]:
    if root.is_file():
        return []
    return sorted(path.relative_to(root) for path in root.rglob("*") if path.is_dir() and not any(path.iterdir()))


def discard(source: Source) -> None:
    """Delete the downloaded files; their hard links in the image remain."""
    if source.path.is_dir():
        shutil.rmtree(source.path)
    else:
        source.path.unlink()
