"""The log of each revision: one file, rotated by supervisord, kept for a while after the revision is gone."""

import codecs
import shutil
from pathlib import Path

MAX_BYTES = 5 * 1024**2  # of one file; with the one before it a revision has at most twice that
BACKUPS = 1
MAX_REVISIONS = 10  # logs per service
MAX_DELETED_SERVICES = 50  # folders of services that are gone


class Logs:
    """The log files below `root`: <service id>/<revision>.log, and .log.1 with what came before."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, service_id: str, number: int) -> Path:
        return self.root / service_id / f"{number}.log"

    def prepare(self, service_id: str, number: int) -> Path:
        """The path to log to; its folder exists (supervisord refuses to start where one is missing)."""
        path = self.path(service_id, number)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def read(self, service_id: str, number: int, after: int, limit: int) -> tuple[str, int]:
        """Text from byte `after` of the file (counted from its end if negative), at most `limit` bytes, and the
        position to go on from. Where the file was rotated meanwhile, the rest of the old one comes first."""
        path = self.path(service_id, number)
        size, old = _size(path), path.with_name(f"{path.name}.1")
        if after < 0:
            after = max(size + after, 0)
        if after > size:
            text, position = _read(old, after, limit)
            return (text, position) if text else _read(path, 0, limit)
        return _read(path, after, limit)

    def last_lines(self, service_id: str, number: int, count: int) -> list[str]:
        """The newest lines of the log, oldest first."""
        text, _ = self.read(service_id, number, -32768, 32768)
        return text.splitlines()[-count:]

    def trim(self, in_use: set[str]) -> None:
        """Delete the oldest logs beyond the limits; never a folder of a service in `in_use`."""
        folders = [folder for folder in self.root.iterdir() if folder.is_dir()] if self.root.exists() else []
        gone = sorted((folder for folder in folders if folder.name not in in_use), key=_age)
        for folder in gone[:-MAX_DELETED_SERVICES]:
            shutil.rmtree(folder, ignore_errors=True)
        for folder in folders:
            for old in sorted(folder.glob("*.log"), key=_age)[:-MAX_REVISIONS]:
                for path in (old, old.with_name(f"{old.name}.1")):
                    path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _read(path: Path, after: int, limit: int) -> tuple[str, int]:
    """At most `limit` bytes as text; a character that is only half there is left for the next time."""
    try:
        with path.open("rb") as file:
            file.seek(after)
            data = file.read(max(limit, 4))  # the longest character has four bytes
    except FileNotFoundError:
        return "", 0
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data)
    return text, after + len(data) - len(decoder.getstate()[0])
