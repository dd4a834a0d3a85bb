"""Paths of assets and models in /app, and detection of conflicts.

The rules (for users: docs/deploy/driver.md):

- An asset is placed at its id and at the base name of its URL. An id without an extension gets that of the URL.
- A model is placed at the base name of its URL and below models/<name>/<version>/.
- Unpacked files retain their paths in the archive: assets below /app, models below /app and models/<name>/<version>/.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mms.images.sources.fetch import base_name


class PathConflictError(Exception):
    """Two items need the same path. The message names both."""


class PathRegistry:
    """The paths in /app that are in use, and their owners."""

    def __init__(self) -> None:
        self._files: dict[PurePosixPath, str] = {}
        self._folders: dict[PurePosixPath, str] = {}

    def register(self, path: PurePosixPath, owner: str) -> None:
        """Record that `owner` has a file at `path`. Raises PathConflictError."""
        for folder in path.parents:
            if folder in self._files:
                raise PathConflictError(_conflict_message(folder, self._files[folder], owner))
            self._folders.setdefault(folder, owner)
        if other := self._files.get(path) or self._folders.get(path):
            raise PathConflictError(_conflict_message(path, other, owner))
        self._files[path] = owner


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


def link_files(source: Source, targets: list[PurePosixPath], app: Path, paths: PathRegistry) -> None:
    """Hard-link the source's files at every target below the folder `app`. Raises PathConflictError."""
    for file, below in source.files():
        for target in targets:
            path = target / below
            paths.register(path, source.owner)
            (app / path).parent.mkdir(parents=True, exist_ok=True)
            os.link(file, app / path)
    for folder in _empty_folders(source.path):
        for target in targets:
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
