"""Removal of folders with untrusted contents."""

import logging
import os
import secrets
import stat
from pathlib import Path

log = logging.getLogger(__name__)


def remove_tree(path: Path) -> bool:
    """Remove the folder or file `path`. Log errors instead of raising them. Return True if nothing is left.

    Works at any depth and for any name: subfolders are moved into `path` before they are read, so that no path is too
    long, no call is nested and few files are open. Folders without permissions are made accessible.
    """
    try:
        if not stat.S_ISDIR(path.lstat().st_mode):
            path.unlink()
        else:
            path.chmod(0o700)
            _empty(path)
            path.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        log.warning("Couldn't remove %s: %s", path, error)
        return False
    return True


def _empty(top: Path) -> None:
    """Remove everything in the folder `top`."""
    root = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        moved, prefix = 0, f".{secrets.token_hex(8)}-"
        while folders := _remove_files(root):
            for name in folders:
                folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=root)
                try:
                    for inner in _remove_files(folder):
                        moved += 1
                        os.rename(inner, f"{prefix}{moved}", src_dir_fd=folder, dst_dir_fd=root)
                finally:
                    os.close(folder)
                os.rmdir(name, dir_fd=root)
    finally:
        os.close(root)


def _remove_files(folder: int) -> list[str]:
    """Remove everything but folders from the open `folder`. Return the names of its folders, now accessible."""
    folders = []
    for name in os.listdir(folder):
        if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            os.chmod(name, 0o700, dir_fd=folder)
            folders.append(name)
        else:
            os.unlink(name, dir_fd=folder)
    return folders
