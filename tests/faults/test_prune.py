"""Pruning during builds, scoring and uploads, by processes that are killed: no file in use is lost.

These tests run the real pruner in a process in a loop. The only difference is that files of any age may be deleted, so
only the rules about use protect those in use.
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connection

from dashboard.files.store import IncomingFile, StoredFile, find_stored, path_of
from deployments.models import RegisteredModel
from mms import models
from mms.engines.base import Health, Limits
from mms.engines.base import Revision as Wanted
from mms.engines.process.engine import ProcessEngine
from mms.images.store.garbage import BLOBS, TREES
from mms.images.store.layout import Store
from mms.models import State
from mms.operations import run
from tests.integration.mms.test_engine_process import address, score
from tests.site import ROOT, wait_until
from tests.supervised import Site, make_image
from tests.support.mms_rows import file_server, image_operation
from tests.support.workshop import make_account

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
SEED = 20_170_601
UPLOADS = "uploads that nothing refers to"
LONGEST_PRUNE = 3.0  # seconds, for these few files; a file that a form uses is safe for a day
PRUNER = """
import django
django.setup()
from dashboard.ops import prune
from mms.operations import prune as mms_prune
mms_prune.MIN_AGE_SECONDS = -60
while True:
    for part in prune.prune():
        print(part.note or part.count, part.label, flush=True)
"""


class Pruner:
    """A process that prunes in a loop. After it is killed, another one can be started."""

    def __init__(self, log: Path, data: Path) -> None:
        self.log, self.kills = log, 0
        name = settings.DATABASES["default"]["NAME"]
        self._environment = os.environ | {"DATA_DIR": str(data), "DATABASE_URL": f"sqlite:///{name}"}
        self._environment |= {"DJANGO_SETTINGS_MODULE": "dashboard.settings"}
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as output:
            command = [sys.executable, "-c", PRUNER]
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=self._environment, stdout=output, stderr=subprocess.STDOUT
            )

    def kill(self) -> None:
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        self.kills += 1

    def has_kills(self, count: int) -> bool:
        """Return True if the pruner was killed at least `count` times."""
        return self.kills >= count

    def counted(self, what: str) -> int:
        """Return how many files of this kind were deleted."""
        lines = [line.partition(" ") for line in self.log.read_text().splitlines()]
        return sum(int(number) for number, _, kind in lines if kind == what and number.isdigit())


@contextmanager
def pruning(log: Path, data: Path, chance: random.Random) -> Iterator[Pruner]:
    """Run a pruner that is killed and restarted every few seconds."""
    pruner, over = Pruner(log, data), threading.Event()

    def torment() -> None:
        while not over.wait(chance.uniform(2.0, 4.0)):
            pruner.kill()
            pruner.start()

    thread = threading.Thread(target=torment)
    thread.start()
    try:
        yield pruner
    finally:
        over.set()
        thread.join()
        pruner.kill()


@pytest.fixture
def data(settings: Any, tmp_path: Path) -> Path:
    """Return a data directory for the test and the processes that it starts."""
    for name in ("FILES", "TMP", "RUN", "MMS"):
        folder = tmp_path / "data" / name.lower()
        folder.mkdir(parents=True)
        setattr(settings, f"{name}_DIR", folder)
    settings.MMS_FETCH_ALLOW_PRIVATE = True
    return tmp_path / "data"


# --- images -------------------------------------------------------------------------------------------------------


def assert_whole(store: Store, digest: str) -> None:
    """Assert that the image is complete and can be unpacked."""
    manifest = store.read_manifest(digest)
    for part in (manifest["config"], *manifest["layers"]):
        assert f"sha256:{hashlib.sha256(store.blob_path(part['digest']).read_bytes()).hexdigest()}" == part["digest"]
    assert (store.assemble(digest).app / "score.py").exists()


def build_images(url: str, seed: int, until: float) -> None:
    """Build images of a few models, so that layers are shared.

    Some builds are canceled and some images deleted. Layers of deleted images may be pruned until they are built again.
    """
    chance = random.Random(seed)
    try:
        while time.monotonic() < until:
            operation = image_operation(url, model=f"m{chance.randrange(4)}.bin")
            canceling = threading.Timer(chance.uniform(0.2, 1.5), _cancel, [operation.pk])
            if chance.random() < 0.3:
                canceling.start()
            run.run(str(operation.pk))
            if canceling.is_alive():
                canceling.join()
            if chance.random() < 0.5:
                assert operation.image_id
                models.Image.objects.filter(pk=operation.image_id).delete()
            time.sleep(chance.uniform(0.0, 1.0))
    finally:
        connection.close()


def _cancel(pk: Any) -> None:
    models.Operation.objects.filter(pk=pk).update(cancel_requested=True)
    connection.close()


def test_images_stay_complete_while_builds_and_a_killed_pruner_alternate(data: Path, tmp_path: Path) -> None:
    chance, log = random.Random(SEED), tmp_path / "pruner.log"
    until = time.monotonic() + 16
    with file_server() as url, pruning(log, data, chance) as pruner:
        threads = [threading.Thread(target=build_images, args=(url, SEED + at, until)) for at in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_until(lambda: pruner.counted(TREES) and pruner.counted(BLOBS), 60, "a pruner that finds no build")
    states = list(models.Operation.objects.values_list("state", flat=True))
    built = models.Image.objects.exclude(digest="")
    errors = [one.error for one in models.Operation.objects.filter(state=State.FAILED)]
    assert errors == []
    assert built.count() == states.count(State.SUCCEEDED) > 3
    store = Store(settings.MMS_DIR)
    for image in built:
        assert store.find_digest(str(image.pk)) == image.digest
        assert_whole(store, image.digest)
    print(
        f"{len(states)} builds, {states.count(State.CANCELED)} canceled, {pruner.kills} pruners killed; freed: "
        f"{pruner.counted(BLOBS)} blobs, {pruner.counted(TREES)} unpacked layers"
    )
    assert pruner.kills > 2
    assert pruner.counted(BLOBS) > 0


def test_a_service_keeps_running_while_a_killed_pruner_deletes_everything_else(tmp_path: Path, settings: Any) -> None:
    """The driver script imports a module only when it is called, long after the start."""
    driver = "def init():\n    pass\n\ndef run(body):\n    import colorsys\n    return open('score.py').readline()\n"
    with Site(tmp_path / "d") as site:
        settings.RUN_DIR, settings.MMS_DIR = site.run, site.mms
        engine = ProcessEngine(site.mms, site.run, site.socket, hidden=site.data)
        image = image_operation(state=State.SUCCEEDED).image
        assert image
        models.Image.objects.filter(pk=image.pk).update(digest=make_image(engine.store, driver))
        image.refresh_from_db()
        service = models.Service.objects.create(account=image.account, name="s", image=image, pull_secret="local")
        revisions = [
            models.Revision.objects.create(service=service, number=number, image=image, state=state)
            for number, state in ((1, "stopped"), (2, "active"))
        ]
        with pruning(tmp_path / "pruner.log", site.data, random.Random(SEED)) as pruner:
            for turn in range(2):
                with engine.store.in_use():  # as a build does
                    make_image(engine.store, driver + "# of no row\n")
                for row in revisions:
                    wanted = Wanted(str(service.pk), row.number, image.digest, Limits())
                    engine.apply(wanted)
                    wait_until(partial(_healthy, engine, wanted), 30, "a healthy revision")
                wait_until(lambda: len(list((site.mms / "layers").iterdir())) == 2, 20, "a prune of the rest")
                wait_until(partial(pruner.has_kills, turn + 1), 20, "a killed pruner")
                for row in revisions:
                    wanted = Wanted(str(service.pk), row.number, image.digest, Limits())
                    assert score(address(engine, wanted), "[1]") == "def init():\n"
                    engine.remove(str(service.pk), row.number)


def _healthy(engine: ProcessEngine, wanted: Wanted) -> bool:
    return engine.observe(wanted.service_id, wanted.number).health == Health.HEALTHY


# --- uploads ------------------------------------------------------------------------------------------------------


def test_no_registered_upload_is_lost_to_a_pruner_however_late_its_form_is_sent(data: Path, tmp_path: Path) -> None:
    """Register files uploaded two days ago. Some forms are submitted too late and rejected."""
    account, chance = make_account(), random.Random(SEED)
    registered: list[tuple[float, StoredFile]] = []
    late = 0
    with pruning(tmp_path / "pruner.log", data, chance) as pruner:
        until = time.monotonic() + 8
        while time.monotonic() < until:
            file = _uploaded_before(os.urandom(16))
            time.sleep(chance.choice([0.0, 0.0, 0.001, 0.01, 0.3]))
            form = find_stored(file.token)
            if form is None:
                late += 1
                continue
            time.sleep(chance.choice([0.0, 0.001, 0.01]))
            RegisteredModel.objects.create(account=account, name="iris", url=form.url, mms_id=file.sha256)
            registered.append((time.monotonic(), file))
            for then, one in registered:
                if time.monotonic() - then > LONGEST_PRUNE:
                    _age(one)  # from here on only the row protects it
        time.sleep(LONGEST_PRUNE)
        for _, one in registered:
            _age(one)
        passes = pruner.log.read_text().count(UPLOADS)
        wait_until(lambda: pruner.log.read_text().count(UPLOADS) > passes + 2, 30, "more prunes")
    print(f"{len(registered)} registered, {late} told that they are late, {pruner.kills} pruners killed")
    assert len(registered) > 50
    assert late > 0
    for digest in RegisteredModel.objects.values_list("mms_id", flat=True):
        assert path_of(digest or "").is_file(), "a registered upload is gone"
    assert 0 < pruner.counted(UPLOADS) <= late, "a killed pruner may not have printed all"


def _uploaded_before(content: bytes) -> StoredFile:
    incoming = IncomingFile()
    incoming.write([content])
    file = incoming.store("model.pkl")
    _age(file)
    return file


def _age(file: StoredFile) -> None:
    then = time.time() - 2 * 86400
    os.utime(path_of(file.sha256), (then, then))
