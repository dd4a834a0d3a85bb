"""Permissions of the data folder: only the owner has access, even if an earlier release or a copy left it open."""

import os
import stat
from pathlib import Path

import pytest
from django.conf import settings

from dashboard.ops.startup import data_dir
from mms.engines.process import sandbox


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.lstat().st_mode) for path in [folder, *folder.iterdir()]}


def test_a_start_restricts_existing_and_new_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, outside = tmp_path / "data", tmp_path / "outside"
    (data / "files").mkdir(parents=True)
    outside.write_text("")
    (data / "link").symlink_to(outside)
    for path, mode in ((data / "db.sqlite3", 0o644), (data / "tool", 0o755)):
        path.write_text("")
        path.chmod(mode)
    for path, mode in ((data / "files", 0o755), (data, 0o755), (outside, 0o644)):
        path.chmod(mode)
    monkeypatch.setattr(settings, "DATA_DIR", data)
    before = os.umask(0o022)
    try:
        data_dir.restrict_permissions()
        (data / "later").write_text("")
    finally:
        os.umask(before)
    found = modes(data)
    assert (found["data"], found["files"], found["db.sqlite3"], found["tool"]) == (0o700, 0o700, 0o600, 0o700)
    assert found["later"] == 0o600
    assert stat.S_IMODE(outside.stat().st_mode) == 0o644, "the target of a link belongs to another user"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can assign folders to a group that it isn't in")
def test_a_start_preserves_the_access_of_services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    (data / "mms").mkdir(parents=True)
    assert data_dir.SERVICE_GID == sandbox.SERVICE_GID
    for path in (data, data / "mms"):
        os.chown(path, -1, sandbox.SERVICE_GID)
        path.chmod(0o755)
    monkeypatch.setattr(settings, "DATA_DIR", data)
    before = os.umask(0o022)
    try:
        data_dir.restrict_permissions()
    finally:
        os.umask(before)
    assert modes(data) == {"data": 0o710, "mms": 0o710}
