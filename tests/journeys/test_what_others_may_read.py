"""File permissions after extensive use of a site: other users of the machine can't read anything, with any umask."""

import stat
from pathlib import Path

import pytest

from tests.journeys.api import Api
from tests.site import Site

pytestmark = pytest.mark.slow
# Files in folders that other users can't enter: parts of images, with their modes in the image, and static files,
# which are public anyway.
OPEN_INSIDE = {"static", "mms/oci", "mms/layers", "mms/rootfs", "mms/cache", "mms/known", "mms/boot"}


def test_other_users_cannot_read_the_data_folder(
    running: Site, api: Api, image: str, data: Path, tmp_path: Path
) -> None:
    service = api.create_service("closed", image)
    running.manage("backup", str(data / "backup.tar"))
    running.manage("create_user", "walker", "--role", "admin", "--password-stdin", stdin="a phrase for tests")
    found = {path.relative_to(data): path.lstat().st_mode for path in [data, *data.rglob("*")]}
    kinds = {stat.S_IFMT(mode) for mode in found.values()}
    assert kinds >= {stat.S_IFDIR, stat.S_IFREG, stat.S_IFSOCK}
    open_folders = [path for path, mode in found.items() if stat.S_ISDIR(mode) and mode & 0o077 and len(path.parts) < 3]
    assert not open_folders
    open_files = [
        f"{path} {stat.S_IMODE(mode):o}"
        for path, mode in found.items()
        if mode & 0o077 and not stat.S_ISLNK(mode) and not any(path.is_relative_to(part) for part in OPEN_INSIDE)
    ]
    assert not open_files
    for must in ("db.sqlite3", "secret_key", "run/supervisor.sock", "run/redis.sock", "backup.tar"):
        assert Path(must) in found
    assert [path for path in found if path.is_relative_to("mms/routes")]
    assert service
