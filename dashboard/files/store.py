"""Uploaded files: kept by their sha256 under FILES_DIR, and the addresses under which the MMS fetches them."""

import fcntl
import hmac
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from django.conf import settings
from django.core import signing
from django.utils.crypto import constant_time_compare, salted_hmac

from dashboard.models import FormerFileKey

DIGEST = re.compile(r"[0-9a-f]{64}")
SALT = "dashboard.files"
NAME_MAX_LENGTH = 120
PREFIX = "upload-"  # of temporary files
_SECRET = re.compile(r"(/files/[0-9a-f]{64}/[^\s?\"'<>]*\?key=)[0-9a-f]+")


@dataclass(frozen=True)
class StoredFile:
    """One uploaded file. `name` is safe in a path and in a header."""

    sha256: str
    name: str
    size: int  # bytes

    @property
    def url(self) -> str:
        """Where the MMS fetches it. Carries the key: for calls to the MMS, never for pages or logs."""
        return file_url(self.sha256, self.name)

    @property
    def token(self) -> str:
        """What stands for this file in forms and addresses of the site; `stored` reads it."""
        return signing.dumps([self.sha256, self.name, self.size], salt=SALT)


def stored(token: str) -> StoredFile | None:
    """The file that `token` stands for; None when the token is forged or the file is gone.

    One that is there counts as new again: no row may refer to it before a form is sent.
    """
    try:
        file = StoredFile(*signing.loads(token, salt=SALT))
    except (signing.BadSignature, TypeError):
        return None
    try:
        with _kept(fcntl.LOCK_SH):
            os.utime(path_of(file.sha256))
    except FileNotFoundError:
        return None
    return file


def remove(path: Path, before: float) -> bool:
    """Delete a kept file for which nothing has asked since then (Unix time); whether it was. Nobody may refer to it."""
    with _kept(fcntl.LOCK_EX):
        if path.stat().st_mtime >= before:
            return False
        path.unlink()
    return True


@contextmanager
def _kept(kind: int) -> Iterator[None]:
    """Keeps apart who deletes files and who says that one is wanted."""
    descriptor = os.open(settings.FILES_DIR / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, kind)
        yield
    finally:
        os.close(descriptor)


def path_of(digest: str) -> Path:
    """Where the file with this sha256 is kept, whether it is there or not."""
    return settings.FILES_DIR / digest[:2] / digest


def file_url(digest: str, name: str) -> str:
    """The address of a kept file, with its key."""
    return f"{settings.FILES_URL}/files/{digest}/{quote(name)}?key={_key(digest, name, settings.SECRET_KEY)}"


def is_file_url(url: str) -> bool:
    """Whether `url` is the address of a kept file, by the FILES_URL of today or by a former one."""
    bases = (settings.FILES_URL, *settings.FORMER_FILES_URLS)
    return url.startswith(tuple(f"{base}/files/" for base in bases))


def is_key(digest: str, name: str, key: str) -> bool:
    """Whether `key` opens this file; keys made with an earlier SECRET_KEY (SECRET_KEY_FALLBACKS) do as well."""
    secrets = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    return any(constant_time_compare(key, _key(digest, name, secret)) for secret in secrets)


def is_former_key(digest: str, name: str, key: str) -> bool:
    """The same of keys made with a SECRET_KEY that is gone since a rotation. Asks the database."""
    text = f"{digest}/{name}".encode()
    kept = [bytes.fromhex(former.key) for former in FormerFileKey.objects.all()]
    return any(constant_time_compare(key, hmac.new(former, text, sha256).hexdigest()) for former in kept)


def keep_former_keys() -> None:
    """Note what the fallbacks open, so that what was registered under them is found when they are gone."""
    kept = {former.key for former in FormerFileKey.objects.all()}
    for secret in settings.SECRET_KEY_FALLBACKS:
        # What salted_hmac makes of salt and secret before it signs.
        former = sha256(f"{SALT}{secret}".encode()).hexdigest()
        if former not in kept:
            FormerFileKey.objects.create(key=former)


def _key(digest: str, name: str, secret: str) -> str:
    return salted_hmac(SALT, f"{digest}/{name}", secret=secret, algorithm="sha256").hexdigest()


def masked(text: str) -> str:
    """`text` with the key of every address of a kept file replaced by “…”, for pages and logs."""
    return _SECRET.sub(r"\1…", text)


def safe_name(name: str) -> str:
    """The file name that a browser sent, without its folders and without what a path or a header cannot carry."""
    base = re.split(r"[\\/]", name)[-1]
    clean = re.sub(r"[^A-Za-z0-9._-]+", "_", base).lstrip(".")
    stem, dot, extension = clean.rpartition(".")
    if dot and len(extension) <= 10:
        return f"{stem[: NAME_MAX_LENGTH - 11]}.{extension}"
    return clean[:NAME_MAX_LENGTH] or "file"


def _begin() -> tuple[BinaryIO, Path]:
    """A new temporary file, locked as long as it is open: what is not locked was left behind by a killed process."""
    while True:
        descriptor, name = tempfile.mkstemp(prefix=PREFIX, dir=settings.TMP_DIR)
        if _lock(descriptor) and Path(name).exists():  # else somebody cleared it away just before it was locked
            return os.fdopen(descriptor, "wb"), Path(name)
        os.close(descriptor)


def clear_abandoned() -> None:
    """Remove the uploads that a killed web process did not bring to an end."""
    for path in settings.TMP_DIR.glob(f"{PREFIX}*"):
        with suppress(FileNotFoundError), path.open("rb") as file:
            if _lock(file.fileno()):
                path.unlink()


def _lock(descriptor: int) -> bool:
    """Take the lock of an open file, unless another holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Incoming:
    """A file on its way in: a temporary file beside the kept ones, until `keep` or `discard`. Every call may block."""

    def __init__(self) -> None:
        clear_abandoned()
        self._file, self._path = _begin()
        self._hash = sha256()
        self.size = 0

    def write(self, parts: list[bytes]) -> None:
        """Append; raises OSError when the disk is full."""
        for part in parts:
            self._file.write(part)
            self._hash.update(part)
            self.size += len(part)

    def keep(self, name: str) -> StoredFile:
        """Put the file where it stays, durably. It replaces one with the same bytes, which counts as new so: `prune`
        leaves it to the form that is being filled in."""
        self._file.flush()
        os.fsync(self._file.fileno())
        file = StoredFile(self._hash.hexdigest(), safe_name(name), self.size)
        place = path_of(file.sha256)
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _kept(fcntl.LOCK_SH):
            os.replace(self._path, place)
        self._file.close()  # not before: what is closed and still a temporary file counts as left behind
        return file

    def discard(self) -> None:
        """Leave nothing behind; after `keep` nothing is left to do."""
        with suppress(OSError):  # what was still buffered does not fit on a full disk either
            self._file.close()
        self._path.unlink(missing_ok=True)
