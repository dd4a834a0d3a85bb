"""Log files of revisions. supervisord rotates them; they are retained for some time after the revision is removed."""

import codecs
import shutil
from pathlib import Path

MAX_BYTES = 5 * 1024**2  # per file; with one backup, a revision has at most twice as much
BACKUPS = 1
MAX_REVISIONS = 10  # with logs, per service
MAX_DELETED_SERVICES = 50  # with logs


class Logs:
    """The log files below `root`: <service ID>/<revision>.log, and .log.1 for the previous one."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, service_id: str, number: int) -> Path:
        """Return the path of a revision's log."""
        return self.root / service_id / f"{number}.log"

    def prepare(self, service_id: str, number: int) -> Path:
        """Return the path of a revision's log, and create its folder, without which supervisord doesn't start."""
        path = self.path(service_id, number)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def read(self, service_id: str, number: int, after: int, limit: int) -> tuple[str, int]:
        """Return at most `limit` bytes of text from byte `after`, and the position for the next call.

        A negative `after` counts from the end. If the file was rotated since, the rest of the old one comes first.
        """
        path = self.path(service_id, number)
        size, old = _size(path), path.with_name(f"{path.name}.1")
        if after < 0:
            after = max(size + after, 0)
        if after > size:
            text, position = _read(old, after, limit)
            return (text, position) if text else _read(path, 0, limit)
        return _read(path, after, limit)

    def last_lines(self, service_id: str, number: int, count: int) -> list[str]:
        """Return the newest lines of the log, oldest first."""
        text, _ = self.read(service_id, number, -32768, 32768)
        return text.splitlines()[-count:]

    def trim(self, in_use: set[str]) -> None:
        """Delete the oldest logs beyond the limits, but no folder of a service in `in_use`."""
        folders = [folder for folder in self.root.iterdir() if folder.is_dir()] if self.root.exists() else []
        deleted = sorted((folder for folder in folders if folder.name not in in_use), key=_modified_at)
        for folder in deleted[:-MAX_DELETED_SERVICES]:
            shutil.rmtree(folder, ignore_errors=True)
        for folder in folders:
            for old in sorted(folder.glob("*.log"), key=_modified_at)[:-MAX_REVISIONS]:
                for path in (old, old.with_name(f"{old.name}.1")):
                    path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _modified_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _read(path: Path, after: int, limit: int) -> tuple[str, int]:
    """Return at most `limit` bytes as text. An incomplete character at the end is left for the next call."""
    try:
        with path.open("rb") as file:
            file.seek(after)
            data = file.read(max(limit, 4))  # the longest character has four bytes
    except FileNotFoundError:
        return "", 0
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data)
    return text, after + len(data) - len(decoder.getstate()[0])
