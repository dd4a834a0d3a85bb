"""Uploaded files, stored by SHA-256 under FILES_DIR, and the signed URLs from which the MMS fetches them."""

import fcntl
import hmac
import os
import re
import tempfile
import unicodedata
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

from dashboard.files.models import FormerFileKey

DIGEST = re.compile(r"[0-9a-f]{64}")
SALT = "dashboard.files"
NAME_MAX_BYTES = 255  # what file systems can store
NAME_SHORT_CHARS, NAME_SHORT_BYTES, MAX_EXTENSION_CHARS = 109, 200, 10  # of names that are longer
UNSAFE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
JOINERS = "\u200c\u200d"  # invisible, but part of the spelling of some languages
TEMP_PREFIX = "upload-"  # of temporary files
_KEY_IN_URL = re.compile(r"(/files/[0-9a-f]{64}/[^\s?\"'<>]*\?key=)[0-9a-f]+")


@dataclass(frozen=True)
class StoredFile:
    """One uploaded file. `name` is safe in a path and in a header."""

    sha256: str
    name: str
    size: int  # bytes

    @property
    def url(self) -> str:
        """The URL from which the MMS fetches the file. It includes the key: never show it in pages or logs."""
        return file_url(self.sha256, self.name)

    @property
    def token(self) -> str:
        """A signed reference to the file for forms and URLs of the site. See `find_stored`."""
        return signing.dumps([self.sha256, self.name, self.size], salt=SALT)


def find_stored(token: str) -> StoredFile | None:
    """Return the file that `token` refers to, or None if the token is forged or the file was deleted.

    Renews the file's modification time, because no row refers to it until the form is submitted.
    """
    try:
        file = StoredFile(*signing.loads(token, salt=SALT))
    except (signing.BadSignature, TypeError):
        return None
    try:
        with _lock_store(fcntl.LOCK_SH):
            os.utime(path_of(file.sha256))
    except FileNotFoundError:
        return None
    return file


def delete_if_unused(path: Path, before: float) -> bool:
    """Delete a stored file that wasn't used since `before` (Unix time). Return True if it was deleted.

    The caller has checked that no row refers to it.
    """
    with _lock_store(fcntl.LOCK_EX):
        if path.stat().st_mtime >= before:
            return False
        path.unlink()
    return True


@contextmanager
def _lock_store(mode: int) -> Iterator[None]:
    """Serialize deletion against `find_stored` and `IncomingFile.store`."""
    descriptor = os.open(settings.FILES_DIR / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, mode)
        yield
    finally:
        os.close(descriptor)


def path_of(digest: str) -> Path:
    """Return the path for the file with this SHA-256, whether it exists or not."""
    files_dir: Path = settings.FILES_DIR
    return files_dir / digest[:2] / digest


def file_url(digest: str, name: str) -> str:
    """Return the URL of a stored file, with its key."""
    return f"{settings.FILES_URL}/files/{digest}/{quote(name)}?key={_key(digest, name, settings.SECRET_KEY)}"


def is_file_url(url: str) -> bool:
    """Return True if `url` is a URL of a stored file, under the current FILES_URL or a former one."""
    bases = (settings.FILES_URL, *settings.FORMER_FILES_URLS)
    return url.startswith(tuple(f"{base}/files/" for base in bases))


def find_size(url: str) -> int | None:
    """Return the size of the stored file with the URL `url` in bytes; None if there is no such file."""
    digest = DIGEST.search(url.partition("/files/")[2]) if is_file_url(url) else None
    try:
        return path_of(digest[0]).stat().st_size if digest else None
    except FileNotFoundError:
        return None


def is_valid_key(digest: str, name: str, key: str) -> bool:
    """Return True if `key` was made for this file with SECRET_KEY or one of SECRET_KEY_FALLBACKS."""
    secrets = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    return any(constant_time_compare(key, _key(digest, name, secret)) for secret in secrets)


def is_valid_former_key(digest: str, name: str, key: str) -> bool:
    """Return True if `key` was made for this file with a SECRET_KEY that was rotated out. Queries the database."""
    text = f"{digest}/{name}".encode()
    former_keys = [bytes.fromhex(former.key) for former in FormerFileKey.objects.all()]
    return any(constant_time_compare(key, hmac.new(former, text, sha256).hexdigest()) for former in former_keys)


def store_former_keys() -> None:
    """Store the file keys of SECRET_KEY_FALLBACKS, so that URLs made with them work after they are removed."""
    known = {former.key for former in FormerFileKey.objects.all()}
    for secret in settings.SECRET_KEY_FALLBACKS:
        # This is how salted_hmac derives its signing key.
        former = sha256(f"{SALT}{secret}".encode()).hexdigest()
        if former not in known:
            FormerFileKey.objects.create(key=former)


def _key(digest: str, name: str, secret: str) -> str:
    return salted_hmac(SALT, f"{digest}/{name}", secret=secret, algorithm="sha256").hexdigest()


def mask_keys(text: str) -> str:
    """Return `text` with the key of every file URL replaced by an ellipsis, for pages and logs."""
    return _KEY_IN_URL.sub(r"\1…", text)


def safe_name(name: str) -> str:
    """Return a file name from a browser without folders, and otherwise as it is if it is safe in a path and a header.

    Control characters and direction marks become underscores, accents are composed (NFC), leading dots are removed, and
    names that file systems can't store are shortened.
    """
    base = unicodedata.normalize("NFC", re.split(r"[\\/]", name)[-1])
    marked = "".join("\0" if _is_unsafe(letter) else letter for letter in base)
    clean = re.sub("\0+", "_", marked).strip().lstrip(".").strip()
    if len(clean.encode()) <= NAME_MAX_BYTES:
        return clean or "file"
    stem, dot, extension = clean.rpartition(".")
    if dot and len(extension) <= MAX_EXTENSION_CHARS:
        return f"{_shorten(stem)}.{extension}"
    return _shorten(clean)


def _is_unsafe(letter: str) -> bool:
    """Return True for control characters, line separators, surrogates and marks without a shape of their own."""
    return unicodedata.category(letter) in UNSAFE_CATEGORIES and letter not in JOINERS


def _shorten(name: str) -> str:
    return name[:NAME_SHORT_CHARS].encode()[:NAME_SHORT_BYTES].decode(errors="ignore")


def _create_temporary() -> tuple[BinaryIO, Path]:
    """Create a temporary file that is locked while it is open. An unlocked one was left by a killed process."""
    while True:
        descriptor, name = tempfile.mkstemp(prefix=TEMP_PREFIX, dir=settings.TMP_DIR)
        if _try_lock(descriptor) and Path(name).exists():  # else `delete_abandoned` deleted it before it was locked
            return os.fdopen(descriptor, "wb"), Path(name)
        os.close(descriptor)


def delete_abandoned() -> None:
    """Delete the incomplete uploads of killed web processes."""
    for path in settings.TMP_DIR.glob(f"{TEMP_PREFIX}*"):
        with suppress(FileNotFoundError), path.open("rb") as file:
            if _try_lock(file.fileno()):
                path.unlink()


def _try_lock(descriptor: int) -> bool:
    """Lock an open file. Return False if another process holds the lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class IncomingFile:
    """A file being uploaded: a temporary file until `store` or `discard`. Every method may block."""

    def __init__(self) -> None:
        delete_abandoned()
        self._file, self._path = _create_temporary()
        self._hash = sha256()
        self.size = 0

    def write(self, chunks: list[bytes]) -> None:
        """Append to the file. Raises OSError if the disk is full."""
        for chunk in chunks:
            self._file.write(chunk)
            self._hash.update(chunk)
            self.size += len(chunk)

    def store(self, name: str) -> StoredFile:
        """Move the file to its final path, durably.

        It replaces a file with the same content. That renews the modification time, so `prune` won't delete the file
        while a form that uses it is being filled in.
        """
        self._file.flush()
        os.fsync(self._file.fileno())
        file = StoredFile(self._hash.hexdigest(), safe_name(name), self.size)
        path = path_of(file.sha256)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _lock_store(fcntl.LOCK_SH):
            self._path.replace(path)
        self._file.close()  # not earlier, because closing releases the lock and an unlocked file counts as abandoned
        return file

    def discard(self) -> None:
        """Delete the temporary file. Does nothing after `store`."""
        with suppress(OSError):  # closing flushes, and that fails on a full disk
            self._file.close()
        self._path.unlink(missing_ok=True)
