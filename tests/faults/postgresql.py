"""A temporary PostgreSQL server on a Unix socket, which runs during a `with` block."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.site import wait_until

USER = "site"


def programs() -> Path | None:
    """Return the folder with the programs (initdb and others) of the newest installed version."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[4]))
    return versions[-1].parent if versions else None


class PostgreSQL:
    def __init__(self, binaries: Path, folder: Path) -> None:
        self.bin, self.folder = binaries, folder

    def url(self, database: str) -> str:
        return f"postgres://{USER}@{str(self.folder).replace('/', '%2F')}/{database}"

    def create(self, database: str) -> str:
        """Create an empty database. Return its DATABASE_URL."""
        self._run("createdb", "-h", str(self.folder), "-U", USER, database)
        return self.url(database)

    def _run(self, program: str, *words: str) -> None:
        command = [*_as_postgres_user(), str(self.bin / program), *words]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr

    def start(self) -> "subprocess.Popen[bytes]":
        data = str(self.folder / "data")
        self._run("initdb", "-D", data, "-U", USER, "--auth", "trust", "--no-sync", "--locale", "C", "-E", "UTF8")
        options = ["-k", str(self.folder), "-c", "listen_addresses=", "-c", "fsync=off"]
        command = [*_as_postgres_user(), str(self.bin / "postgres"), "-D", data, *options]
        process = subprocess.Popen(
            command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=(self.folder / "log").open("wb")
        )
        wait_until((self.folder / ".s.PGSQL.5432").exists, 30, "PostgreSQL to listen")
        return process


@contextmanager
def server(binaries: Path) -> Iterator[PostgreSQL]:
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        if os.getuid() == 0:
            shutil.chown(folder, "postgres")
        postgresql = PostgreSQL(binaries, folder)
        process = postgresql.start()
        try:
            yield postgresql
        finally:
            process.terminate()  # doesn't wait for open connections: those of the tests are closed
            process.wait(60)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _as_postgres_user() -> list[str]:
    """Return options that run a program as another user, because PostgreSQL refuses to run as root."""
    if os.getuid():
        return []
    return ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups", "--"]
