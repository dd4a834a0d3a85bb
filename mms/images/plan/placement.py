"""Where assets and models lie in /app, and that no two of them want the same place.

The rules (for users: docs/deploy/driver.md): an asset is placed at its id, with its URL's extension if the id has
none, and also at its URL's base name; a model at its URL's base name and below models/<name>/<version>/. Unpacked files
keep their paths in the archive: assets below /app, models below /app and models/<name>/<version>/.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mms.images.sources.fetch import base_name


class PathConflictError(Exception):
    """Two things want the same path. The text names both."""


class PathRegistry:
    """Every path of /app that is taken, and by what."""

    def __init__(self) -> None:
        self._files: dict[PurePosixPath, str] = {}
        self._folders: dict[PurePosixPath, str] = {}

    def register(self, path: PurePosixPath, owner: str) -> None:
        """Note that `owner` has a file at `path`. Raises PathConflictError."""
        for folder in path.parents:
            if folder in self._files:
                raise PathConflictError(_conflict_message(folder, self._files[folder], owner))
            self._folders.setdefault(folder, owner)
        if other := self._files.get(path) or self._folders.get(path):
            raise PathConflictError(_conflict_message(path, other, owner))
        self._files[path] = owner


def _conflict_message(path: PurePosixPath, first: str, second: str) -> str:
    return f"Two things would lie at /app/{path}: {first} and {second}. Give one of them another file name."


def asset_paths(asset_id: str, url: str) -> list[PurePosixPath]:
    """Where an asset that is not unpacked lies: the place its id says first."""
    name = base_name(url)
    by_id = asset_id if PurePosixPath(asset_id).suffix else asset_id + _extension(name)
    return [PurePosixPath(text) for text in dict.fromkeys([by_id, name]) if text]


def model_folder(name: str, version: int) -> PurePosixPath:
    return PurePosixPath("models", name, str(version))


def _extension(name: str) -> str:
    """ ".py", ".tar.gz", or ""."""
    suffixes = PurePosixPath(name).suffixes
    return "".join(suffixes[-2:]) if suffixes[-2:-1] == [".tar"] else "".join(suffixes[-1:])


@dataclass(frozen=True)
class Source:
    """Something fetched: a file, or the folder it was unpacked into."""

    owner: str  # for people: "model iris 3", "asset score"
    path: Path

    def files(self) -> list[tuple[Path, PurePosixPath]]:
        """Every file with its path below the source; a single file has the path "."."""
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
    """Drop the names under which it was fetched; where it was placed it stays."""
    if source.path.is_dir():
        shutil.rmtree(source.path)
    else:
        source.path.unlink()
