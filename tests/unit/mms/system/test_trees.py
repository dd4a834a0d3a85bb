"""Removal of folders with hostile contents."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from mms.system.trees import remove_tree


def nest(top: Path, depth: int) -> None:
    """Create `depth` folders inside each other, deeper than a path can be."""
    here = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("folder", dir_fd=here)
        inner = os.open("folder", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("file", os.O_CREAT, dir_fd=here))
    os.close(here)


def test_five_thousand_nested_folders_are_removed() -> None:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        top = Path(folder, "top")
        top.mkdir()
        nest(top, 5000)
        assert remove_tree(top)
        assert not top.exists()


def test_any_name_and_any_permissions_are_removed(tmp_path: Path) -> None:
    top = tmp_path / "top"
    for name in (b"\xff\xfe", b"new\nline", b"-rf", b"*", b"a" * 255):
        folder = top / os.fsdecode(name)
        folder.mkdir(parents=True)
        os.mkfifo(folder / "pipe")
        (folder / "file").touch(mode=0)
        folder.chmod(0)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (top / "link").symlink_to(outside)
    (top / "loop").symlink_to(top)
    top.chmod(0)
    assert remove_tree(top)
    assert not top.exists()
    assert (outside / "kept").exists()


def test_a_link_is_removed_without_its_target(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "target").mkdir()
    assert remove_tree(tmp_path / "link")
    assert (tmp_path / "target").is_dir()


def test_a_missing_folder_is_not_an_error(tmp_path: Path) -> None:
    assert remove_tree(tmp_path / "missing")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can set this attribute")
def test_failed_removals_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "top" / "file"
    file.parent.mkdir()
    file.touch()
    if subprocess.run(["chattr", "+i", str(file)], check=False, capture_output=True).returncode:
        pytest.skip("this file system has no immutable files")
    try:
        assert not remove_tree(file.parent)
        assert "Couldn't remove" in caplog.text
    finally:
        subprocess.run(["chattr", "-i", str(file)], check=True)
