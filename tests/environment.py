"""Loaded by pytest before Django: the tests write to a temporary data folder, never to var/."""

import atexit
import os
import shutil
import tempfile

_directory = tempfile.mkdtemp(prefix="mmd-")
atexit.register(shutil.rmtree, _directory, ignore_errors=True)
os.environ["DATA_DIR"] = _directory
os.environ.setdefault("SECRET_KEY", "only for tests")
for _name in (
    "DATABASE_URL",
    "REDIS_URL",
    "SITE_URL",
    "FILES_URL",
    "FORMER_FILES_URLS",
    "GATEWAY_URL",
    "ALLOWED_HOSTS",
    "HOST",
    "PORT",
    "SERVE",
):
    os.environ.pop(_name, None)
