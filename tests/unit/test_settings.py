"""A setting that cannot be used stops every command with one sentence that names it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings


def manage(**environment: str) -> subprocess.CompletedProcess[str]:
    """The outcome of `manage.py up`, in an environment where it ends before it starts anything."""
    values = {**os.environ, **environment}
    command = [sys.executable, "manage.py", "up"]
    return subprocess.run(command, cwd=settings.BASE_DIR, env=values, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("PORT", "http", "PORT must be a whole number, not 'http'."),
        ("PORT", "65536", "PORT must be between 1 and 65535, not 65536."),
        ("SERVE", "pages", "SERVE takes a comma separated list of: dashboard, mms."),
        ("KEEP_OPERATIONS_DAYS", "3", "KEEP_OPERATIONS_DAYS must be a number of days between 7 and 36500, not 3."),
        ("DEBUG", "maybe", "DEBUG must be true or false, not 'maybe'."),
        ("LOG_LEVEL", "loud", "LOG_LEVEL must be DEBUG, INFO, WARNING or ERROR, not 'LOUD'."),
        ("REDIS_URL", ":hidden@host:6379/0", "REDIS_URL cannot be read: write it as redis://"),
        ("DATABASE_URL", "psql://me:hidden@x/y", "DATABASE_URL cannot be read: write it as postgres://"),
        ("DATABASE_URL", "postgres://me:hidden@x:port/y", "DATABASE_URL cannot be read: write it as postgres://"),
    ],
)
def test_a_wrong_value_is_named_in_one_sentence(name: str, value: str, sentence: str, tmp_path: Path) -> None:
    done = manage(DATA_DIR=str(tmp_path / "data"), **{name: value})
    assert done.returncode == 1
    assert done.stderr.startswith(sentence)
    assert done.stderr.count("\n") == 1
    assert "hidden" not in done.stderr


def test_a_data_folder_that_cannot_be_made_is_named_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = manage(DATA_DIR=str(tmp_path / "file" / "data"))
    assert done.returncode == 1
    assert done.stderr.startswith(f"DATA_DIR cannot be used, for {tmp_path}/file/data: Not a directory.")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_data_folder_of_somebody_else_is_named_in_one_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    done = manage(DATA_DIR=str(tmp_path))
    assert done.stderr.startswith("DATA_DIR cannot be used, for ")
    assert done.stderr.count("\n") == 1
