"""Packages after a kill or a power failure: no partial results and no leftover processes."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import uv

from mms.images.packages import install
from mms.images.runtimes import HOST_PLATFORM, HOST_PYTHON
from mms.system.locks import locked
from tests.builder import pip_config
from tests.site import wait_until
from tests.support.wheels import make_wheel

SILENT = """
import socket, time
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
time.sleep(60)
"""
COMPILE = "import sys; from pathlib import Path; from mms.images.packages.install import compile_tree\n"
COMPILE += "compile_tree(Path(sys.argv[1]), '/opt/x')"


def large_modules(folder: Path, count: int) -> Path:
    """Create modules that take a few seconds to compile."""
    folder.mkdir()
    for number in range(count):
        (folder / f"m{number}.py").write_text("".join(f"def f{n}(a):\n    return [a, {n}]\n" for n in range(30_000)))
    return folder


def compilers(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if str(folder) in process.cmdline() and "compileall" in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.slow
@pytest.mark.serial
def test_compilers_end_with_the_builder(tmp_path: Path) -> None:
    folder = large_modules(tmp_path / "site", 2 * (os.cpu_count() or 1))
    builder = subprocess.Popen([sys.executable, "-c", COMPILE, folder])
    wait_until(lambda: compilers(folder), 20, "the compilers to start")
    builder.send_signal(signal.SIGKILL)
    builder.wait()
    wait_until(lambda: not compilers(folder), 2, "the compilers to end")


@pytest.mark.slow
def test_a_killed_compiler_fails_the_build(tmp_path: Path) -> None:
    folder = large_modules(tmp_path / "site", 2 * (os.cpu_count() or 1))
    failed: list[Exception] = []
    compiling = threading.Thread(target=lambda: _catch(lambda: install.compile_tree(folder, "/opt/x"), failed))
    compiling.start()
    wait_until(lambda: compilers(folder), 20, "the compilers to start")[0].kill()
    compiling.join(60)
    assert isinstance(failed[0], install.InstallError)


def _catch(call: Callable[[], Any], failed: list[Exception]) -> None:
    try:
        call()
    except Exception as error:
        failed.append(error)


def test_truncated_files_in_the_cache_are_downloaded_again(tmp_path: Path) -> None:
    wheels, said = tmp_path / "wheels", list[str]()
    wheels.mkdir()
    make_wheel(wheels, "onething", "1.0", scripts=("one",))
    config = pip_config(tmp_path, find_links=str(wheels), no_index="1")
    installer = install.Installer(tmp_path / "cache", tmp_path, said.append, config)
    target = install.Target(HOST_PYTHON, HOST_PLATFORM, sys.executable)
    lock = installer.lock(["onething"], "key", target)
    installer.install(lock, tmp_path / "first", target)
    assert install.find_truncated_file(tmp_path / "first") == ""
    for module in (tmp_path / "cache").rglob("onething.py"):
        os.truncate(module, 0)
    installer.install(lock, tmp_path / "second", target)
    assert any("onething.py is shorter than" in line for line in said)
    assert (tmp_path / "second" / "onething.py").read_text().startswith("VERSION = '1.0'")
    said.clear()
    installer.install(lock, tmp_path / "third", target)
    assert not any("shorter than" in line for line in said), "the cache is whole again"


def test_an_empty_lock_is_ignored(tmp_path: Path) -> None:
    make_wheel(tmp_path, "onething", "1.0")
    config = pip_config(tmp_path, find_links=str(tmp_path), no_index="1")
    installer = install.Installer(tmp_path / "cache", tmp_path, print, config)
    target = install.Target(HOST_PYTHON, HOST_PLATFORM, sys.executable)
    (tmp_path / "cache/locks/key.txt").touch()
    assert installer.lock(["onething"], "key", target).startswith("onething==1.0")


def test_leftovers_of_a_killed_uv_are_deleted_unless_another_runs(tmp_path: Path) -> None:
    left = tmp_path / "uv" / ".tmpHalf"
    left.mkdir(parents=True)
    (left / "half.whl").touch()
    with locked(tmp_path / "uv" / ".lock"):
        install.clear_cache(tmp_path)
        assert left.exists()
    install.clear_cache(tmp_path)
    assert not left.exists()


def test_uv_holds_its_lock_while_it_runs(tmp_path: Path) -> None:
    """If this fails after an upgrade of uv, adapt `clear_cache` to uv's new lock."""
    environment = {**os.environ, "UV_CACHE_DIR": str(tmp_path / "uv")}
    index = subprocess.Popen([sys.executable, "-c", SILENT], stdout=subprocess.PIPE, text=True)
    assert index.stdout
    url = f"http://127.0.0.1:{index.stdout.readline().strip()}/simple"
    asking = subprocess.Popen(
        [uv.find_uv_bin(), "pip", "install", "--target", tmp_path / "x", "--index-url", url, "heldthing"],
        env=environment, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: _is_held(tmp_path / "uv" / ".lock"), 20, "uv to hold its lock")
    finally:
        for process in (asking, index):
            process.kill()
            process.wait()
    wait_until(lambda: not _is_held(tmp_path / "uv" / ".lock"), 5, "the lock to go with it")


def _is_held(path: Path) -> bool:
    if not path.exists():
        return False
    with locked(path, wait=False) as free:
        return not free
