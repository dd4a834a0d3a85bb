"""A temporary data folder for each test process, set up by pytest before Django loads. Tests never write to var/.

With pytest-xdist each worker is such a process. Its folder, which contains its database and its Redis, is inside the
folder of the process that started it. `RUN` is the folder that all processes of one run share.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
if WORKER:
    RUN = Path(os.environ["DATA_DIR"])
    _directory = RUN / WORKER
else:
    RUN = _directory = Path(tempfile.mkdtemp(prefix="mmd-"))
atexit.register(shutil.rmtree, _directory, ignore_errors=True)
os.environ["DATA_DIR"] = str(_directory)
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
    "GATEWAY_PORT",
    "SERVE",
):
    os.environ.pop(_name, None)
