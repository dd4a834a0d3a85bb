"""Verification of a service's socket: only the one that the launcher created is connected to."""

import os
import socket
from pathlib import Path

import pytest

from mms.engines.probe import probe
from mms.engines.process import launch
from mms.system.service_sockets import ForeignSocketError, verified


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a short path, and the socket "s" that the launcher created in it."""
    monkeypatch.chdir(tmp_path)
    launched(tmp_path / "s")
    return tmp_path


def launched(path: Path) -> None:
    """Create the socket as the launcher does. Its process, which would serve it, has ended."""
    path.parent.mkdir(exist_ok=True)
    child = os.fork()
    if not child:
        launch.listen(str(path), 9)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def bound(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(os.path.relpath(path))
    listening.listen()
    return listening


def test_the_launched_socket_is_verified(folder: Path) -> None:
    with verified(str(folder / "s")) as path:
        assert Path(path).stat().st_ino == (folder / "s").stat().st_ino


def test_a_link_to_another_socket_is_refused(folder: Path) -> None:
    with bound(folder / "other"):
        (folder / "s").unlink()
        (folder / "s").symlink_to(folder / "other")
        refused(folder, "isn't a socket")
        assert probe(f"unix:{folder / 's'}").status == 0


def test_a_hard_link_to_another_socket_is_refused(folder: Path) -> None:
    with bound(folder / "other"):
        (folder / "s").unlink()
        os.link(folder / "other", folder / "s")
        refused(folder, "isn't the socket")


def test_another_service_s_launched_socket_is_refused(folder: Path) -> None:
    launched(folder / "o" / "s")
    (folder / "o" / "s").rename(folder / "s")
    refused(folder, "isn't the socket")


def test_a_new_socket_in_its_place_is_refused(folder: Path) -> None:
    (folder / "s").unlink()
    with bound(folder / "s"):
        refused(folder, "isn't the socket")


def test_a_file_and_a_pipe_are_refused(folder: Path) -> None:
    (folder / "s").unlink()
    os.mkfifo(folder / "s")
    refused(folder, "isn't a socket")
    (folder / "s").unlink()
    (folder / "s").touch()
    refused(folder, "isn't a socket")


def test_a_damaged_record_is_refused(folder: Path) -> None:
    (folder / "s.id").unlink()
    (folder / "s.id").symlink_to("nonsense")
    refused(folder, "record")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_socket_of_another_user_is_refused(folder: Path) -> None:
    os.chown(folder / "s", 12345, 12345)
    refused(folder, "isn't the socket")


def test_a_socket_of_an_earlier_release_has_no_record(folder: Path) -> None:
    with bound(folder / "old"), verified(str(folder / "old")) as path, socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_a_socket_replaced_after_the_check_is_not_connected_to(folder: Path) -> None:
    with bound(folder / "other"), verified(str(folder / "s")) as path, socket.socket(socket.AF_UNIX) as client:
        (folder / "other").replace(folder / "s")
        with pytest.raises(ConnectionRefusedError):  # the launched one, which nothing serves
            client.connect(path)


def refused(folder: Path, reason: str) -> None:
    with pytest.raises(ForeignSocketError, match=reason), verified(str(folder / "s")):
        pass
