"""A backup of a running site can be restored elsewhere. A damaged backup or a killed restore changes nothing."""

import os
import re
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.faults.installation import PASSWORD, Installation, cpu_of_children
from tests.journeys.api import FLOWERS, HERE, Api, call
from tests.site import ROOT, Site, wait_until
from tests.support.lifecycle import present
from tests.twins import twins

pytestmark = pytest.mark.slow


# --- a whole site, moved ----------------------------------------------------------------------------------------------


def signed_in(site: Site, session: requests.Session) -> bool:
    """Return True if the session is signed in."""
    return session.get(f"{site.url}/", allow_redirects=True).url.find("/sign-in/") < 0


def sign_in(site: Site, name: str) -> requests.Session:
    session = requests.Session()
    page = session.get(site.url)
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
    assert token
    form = {"csrfmiddlewaretoken": token[1], "username": name, "password": PASSWORD}
    assert session.post(page.url, form, headers={"Origin": site.url}).ok
    return session


def upload(site: Site, session: requests.Session, content: bytes) -> dict[str, Any]:
    answer = session.post(
        f"{site.url}/uploads/?account=local", files={"file": ("weights.bin", content)}, headers={"Origin": site.url}
    )
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


class Registering(threading.Thread):
    """A thread that registers models over the API and records which were acknowledged, and when."""

    def __init__(self, api: Api) -> None:
        super().__init__(daemon=True)
        self.api, self.slowest = api, 0.0
        self.acknowledged: list[tuple[float, str]] = []  # (time, ID)
        self.over = threading.Event()

    def __enter__(self) -> "Registering":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join()

    def run(self) -> None:
        while not self.over.is_set():
            before = time.monotonic()
            model = self.api.register_model("meanwhile")
            self.acknowledged.append((time.monotonic(), model))
            self.slowest = max(self.slowest, time.monotonic() - before)


@dataclass
class Taken:
    """A site, a backup made while it was in use, and what must exist after a restore."""

    site: Site
    api: Api
    session: requests.Session
    file: Path
    upload: dict[str, Any]
    operations: set[str]
    image: str
    build: str  # the operation of a build that ran during the backup
    key: str
    said: str
    before: list[str] = field(default_factory=list)  # models acknowledged before the backup began
    during: int = 0
    slowest: float = 0.0


def first(api: Api, noun: str) -> dict[str, Any]:
    return dict(api.ask("GET", noun)[1][0])


def keys(api: Api, service: str) -> str:
    return str(api.ask("GET", f"services/{service}/keys")[1]["primaryKey"])


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Taken]:
    folder = tmp_path_factory.mktemp("backup")
    site = Installation(folder / "a")
    try:
        site.start()
        yield take(site, folder / "backup.tar")
    finally:
        site.stop()


def take(site: Installation, file: Path) -> Taken:
    site.manage("demo")
    site.manage("create_user", "ann", "--role", "admin", "--password-stdin", stdin=f"{PASSWORD}\n")
    session = sign_in(site, "ann")
    sent = upload(site, session, os.urandom(1_000_000))
    api = Api(site, "http://files.example")
    service, image = first(api, "services"), first(api, "images")
    page = session.get(f"{site.url}/accounts/local/operations/").text
    with Registering(api) as writer:
        wait_until(lambda: len(writer.acknowledged) > 20, 30, "models to be registered")
        body = {"manifestId": image["manifestId"], "imageType": "Docker", "registryInfo": HERE}
        _, _, headers = api.ask("POST", "images", body)
        started = time.monotonic()
        done = site.attempt("backup", str(file))
        ended = time.monotonic()
    assert done.returncode == 0, done.stderr
    return Taken(
        site=site,
        api=api,
        session=session,
        file=file,
        upload=sent,
        operations=set(re.findall(r"operation-([0-9a-f-]{36})", page)),
        image=image["manifestId"],
        build=headers["x-ms-request-id"],
        key=keys(api, service["id"]),
        said=done.stderr,
        before=[model for at, model in writer.acknowledged if at < started],
        during=sum(started < at < ended for at, _ in writer.acknowledged),
        slowest=writer.slowest,
    )


@dataclass
class Restored:
    site: Site
    api: Api
    said: str


@pytest.fixture(scope="module")
def restored(taken: Taken, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restored]:
    taken.site.stop()
    site = Site(tmp_path_factory.mktemp("restored") / "elsewhere")
    said = site.manage("restore", str(taken.file))
    site.start()
    api = Api(site, "http://files.example")
    api.token = taken.api.token
    try:
        yield Restored(site, api, said)
    finally:
        site.stop()


def test_the_backup_delays_no_requests(taken: Taken) -> None:
    assert taken.during > 20
    assert taken.slowest < 3, f"{taken.slowest:.1f} s for one model"


def test_a_backup_warns_that_it_is_secret_and_only_its_owner_can_read_it(taken: Taken) -> None:
    assert "contains the secret key of the site" in taken.said
    secret = (taken.site.data / "secret_key").read_text()
    assert secret not in taken.said
    assert taken.file.stat().st_mode & 0o777 == 0o600
    with tarfile.open(taken.file) as archive:
        about = present(archive.extractfile("about.json")).read().decode()
        assert present(archive.extractfile("secret_key")).read().decode() == secret
        assert not [name for name in archive.getnames() if name.split("/")[0] in {"redis", "log", "run", "tmp"}]
    assert "contains the secret key of the site" in about
    assert secret not in about


def test_users_can_sign_in_and_stay_signed_in(taken: Taken, restored: Restored) -> None:
    assert signed_in(restored.site, sign_in(restored.site, "ann"))
    assert signed_in(restored.site, taken.session)  # cookies don't depend on the port
    assert not signed_in(restored.site, requests.Session())


def test_operations_and_tokens_are_restored(taken: Taken, restored: Restored) -> None:
    page = taken.session.get(f"{restored.site.url}/accounts/local/operations/").text
    assert len(taken.operations) >= 4
    assert taken.operations <= set(re.findall(r"operation-([0-9a-f-]{36})", page))
    assert restored.api.ask("GET", "models")[0] == 200


def test_models_acknowledged_before_the_backup_are_restored(taken: Taken, restored: Restored) -> None:
    there = {model["id"] for model in restored.api.ask("GET", "models")[1]}
    assert len(taken.before) > 20
    assert set(taken.before) <= there


def test_the_service_scores_with_the_same_key(taken: Taken, restored: Restored) -> None:
    uri = f"{restored.site.gateway_url}/scoring/"

    def answer() -> Any:
        service = first(restored.api, "services")
        assert service["scoringUri"].startswith(uri)
        return call("POST", service["scoringUri"], FLOWERS, taken.key)[:2]

    status, scores = wait_until(lambda: (found := answer())[0] == 200 and found, 60, "the service to score")
    assert status == 200
    assert scores["species"] == ["setosa", "virginica"]


def test_a_build_that_ran_during_the_backup_completes(taken: Taken, restored: Restored) -> None:
    restored.api.wait({"x-ms-request-id": taken.build})


def test_an_image_can_be_built_again_from_files_uploaded_to_the_old_address(taken: Taken, restored: Restored) -> None:
    digest = {path.name for path in (restored.site.data / "files").glob("*/*")}
    assert taken.upload["sha256"] in digest
    image = restored.api.create_image(taken.image)
    assert restored.api.image(image)["digest"] == first(restored.api, "images")["digest"]


# --- damaged files and full disks -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation(tmp_path_factory.mktemp("small") / "a").ready()


@pytest.fixture(scope="module")
def backup(small: Installation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("backups") / "backup.tar"
    small.manage("backup", str(path))
    return path


@pytest.fixture
def elsewhere(tmp_path: Path) -> Installation:
    return Installation(tmp_path / "elsewhere")


def refused(place: Installation, *words: str, **more: Any) -> str:
    """Run a command that must fail and change nothing. Return its message."""
    place.data.mkdir(exist_ok=True)
    key = place.data / "secret_key"
    if not key.exists():
        key.write_text("made by the first command there is\n")
    before = place.content()
    done = place.attempt(*words, **more)
    assert done.returncode != 0
    assert place.content() == before
    assert list((place.data / "tmp").iterdir()) == []
    assert key.read_text().strip() not in done.stderr
    return done.stderr


def test_a_restored_installation_has_everything(elsewhere: Installation, backup: Path) -> None:
    elsewhere.manage("restore", str(backup))
    elsewhere.assert_complete()
    assert not list(elsewhere.data.glob("replaced-*"))


def test_a_backup_can_be_piped(small: Installation, elsewhere: Installation, tmp_path: Path) -> None:
    path = tmp_path / "piped"
    with path.open("wb") as target:
        command = [sys.executable, "manage.py", "backup", "-"]
        subprocess.run(command, cwd=ROOT, env=small.environment, stdout=target, check=True, timeout=60)
    with path.open("rb") as source:
        sender = subprocess.Popen(["cat"], stdin=source, stdout=subprocess.PIPE)
        done = elsewhere.attempt("restore", "-", stdin=sender.stdout)
    assert done.returncode == 0, done.stderr
    assert sender.wait(10) == 0
    elsewhere.assert_complete()


def test_an_empty_site_is_not_backed_up(elsewhere: Installation, tmp_path: Path) -> None:
    assert "There is nothing to back up" in refused(elsewhere, "backup", str(tmp_path / "backup.tar"))
    assert not (tmp_path / "backup.tar").exists()


@pytest.mark.parametrize("where", [0.0, 0.5, 0.9999])
def test_a_damaged_backup_changes_nothing(elsewhere: Installation, backup: Path, tmp_path: Path, where: float) -> None:
    data = bytearray(backup.read_bytes())
    data[int(where * (len(data) - 1100))] ^= 1
    (tmp_path / "damaged.tar").write_bytes(data)
    assert "isn't a complete backup" in refused(elsewhere, "restore", str(tmp_path / "damaged.tar"))


@pytest.mark.parametrize("part", [0.0, 0.5, 0.99])
def test_an_incomplete_backup_changes_nothing(
    elsewhere: Installation, backup: Path, tmp_path: Path, part: float
) -> None:
    data = backup.read_bytes()
    (tmp_path / "short.tar").write_bytes(data[: int(part * len(data))])
    assert "cut off" in refused(elsewhere, "restore", str(tmp_path / "short.tar"))


def test_a_hostile_archive_changes_nothing(elsewhere: Installation, backup: Path, tmp_path: Path) -> None:
    data, hostile = backup.read_bytes(), tmp_path / "hostile.tar"
    link = tarfile.TarInfo("files/00/link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc"
    end = data.rindex(b"SHA256SUMS")  # start of its header
    hostile.write_bytes(data[:end] + link.tobuf(tarfile.GNU_FORMAT) + data[end:])
    assert "doesn't belong in a backup" in refused(elsewhere, "restore", str(hostile))


def test_an_existing_file_is_replaced_only_with_force(small: Installation, tmp_path: Path) -> None:
    path = tmp_path / "backup.tar"
    path.write_text("mine")
    assert "already exists" in refused(small, "backup", str(path))
    assert path.read_text() == "mine"
    small.manage("backup", str(path), "--force")
    assert path.stat().st_size > 5_000_000


def test_existing_data_is_moved_away_only_with_replace(elsewhere: Installation, backup: Path) -> None:
    elsewhere.ready()
    old = {path.name for path in (elsewhere.data / "files").glob("*/*")}
    assert "--replace" in refused(elsewhere, "restore", str(backup))
    said = elsewhere.manage("restore", str(backup), "--replace")
    elsewhere.assert_complete()
    (aside,) = elsewhere.data.glob("replaced-*")
    assert str(aside) in said
    assert {path.name for path in (aside / "files").glob("*/*")} == old
    assert aside.stat().st_mode & 0o777 == 0o700
    assert {"db.sqlite3", "secret_key"} <= {path.name for path in aside.iterdir()}


def test_a_database_that_is_in_use_is_not_replaced(elsewhere: Installation, backup: Path) -> None:
    elsewhere.ready()
    user = elsewhere.start_code(
        "from django.db import connection as c; c.ensure_connection(); print('open', flush=True); input()"
    )
    try:
        assert present(user.stdout).readline() == "open\n"
        done = elsewhere.attempt("restore", str(backup), "--replace")
        assert "in use by another process" in done.stderr
    finally:
        user.kill()
        user.wait()
    assert not list(elsewhere.data.glob("replaced-*"))


def test_a_backup_of_a_newer_release_is_rejected(small: Installation, elsewhere: Installation, tmp_path: Path) -> None:
    newer = Installation(tmp_path / "newer").ready()
    newer.run(
        "from django.db import connection; from django.db.migrations.recorder import MigrationRecorder as R\n"
        "R(connection).record_applied('deployments', '9999_the_future')"
    )
    newer.manage("backup", str(tmp_path / "newer.tar"))
    said = refused(elsewhere, "restore", str(tmp_path / "newer.tar"))
    assert "deployments.9999_the_future" in said
    assert "newer release" in said


def test_another_secret_key_is_rejected_and_the_advice_works(elsewhere: Installation, backup: Path) -> None:
    elsewhere.environment["SECRET_KEY"] = "another one"
    said = refused(elsewhere, "restore", str(backup))
    advice = re.search(r"export (SECRET_KEY_FALLBACKS=.*)", said)
    assert advice
    with tarfile.open(backup) as archive:
        assert present(archive.extractfile("secret_key")).read().decode() not in said
    value = subprocess.run(
        ["sh", "-c", f"{advice[1]}; printf %s $SECRET_KEY_FALLBACKS"], capture_output=True, text=True
    ).stdout
    elsewhere.environment["SECRET_KEY_FALLBACKS"] = value
    elsewhere.manage("restore", str(backup))
    elsewhere.assert_complete()


def test_one_half_of_a_site_can_be_restored_without_a_database(
    small: Installation, elsewhere: Installation, tmp_path: Path
) -> None:
    file = tmp_path / "files.tar"
    done = small.attempt("backup", "--files-only", str(file), SERVE="dashboard")
    assert "doesn't contain images" in done.stderr
    elsewhere.environment["SECRET_KEY"] = (small.data / "secret_key").read_text()
    elsewhere.manage("restore", str(file))
    assert len(list((elsewhere.data / "files").glob("*/*"))) == 1
    assert not (elsewhere.data / "db.sqlite3").exists()


def test_queued_operations_are_uncertain_after_a_restore(elsewhere: Installation, tmp_path: Path) -> None:
    waiting = Installation(tmp_path / "waiting").ready()
    waiting.run(
        "from deployments.models import HostingAccount, Operation\n"
        "account = HostingAccount.objects.get()\n"
        "for state in ('queued', 'sending', 'running', 'failed'):\n"
        "    Operation.objects.create(account=account, kind='register_model', state=state, requested_by='ann')"
    )
    waiting.manage("backup", str(tmp_path / "waiting.tar"))
    said = elsewhere.manage("restore", str(tmp_path / "waiting.tar"))
    assert "2 operations were queued then" in said
    states = elsewhere.ask("sorted(Operation.objects.values_list('state', flat=True))")
    assert states == ["failed", "running", "uncertain", "uncertain"]


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 4 MB."""
    folder = tmp_path / "full"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("a small file system can be mounted only by root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_leaves_no_partial_backup(small: Installation, full_disk: Path) -> None:
    assert "The disk is full" in refused(small, "backup", str(full_disk / "backup.tar"))
    assert list(full_disk.iterdir()) == []


def test_a_restore_onto_a_full_disk_changes_nothing(full_disk: Path, backup: Path) -> None:
    place = Installation(full_disk / "d")
    assert "Nothing was changed. Free some space" in refused(place, "restore", str(backup))
    with backup.open("rb") as file:  # the size is unknown
        sender = subprocess.Popen(["cat"], stdin=file, stdout=subprocess.PIPE)
        said = refused(place, "restore", "-", stdin=sender.stdout)
    present(sender.stdout).close()
    sender.wait(10)
    assert "The disk is full" in said


# --- killed -----------------------------------------------------------------------------------------------------------


@twins("step", 13, 5)
def test_a_killed_backup_leaves_nothing_that_looks_complete(
    small: Installation, elsewhere: Installation, tmp_path: Path, step: int
) -> None:
    path, number = tmp_path / "backup.tar", 0
    calls = "dashboard.ops.backup.archive.Writer._write os.fsync pathlib.Path.rename"
    while small.killed_at(number, calls, "backup", str(path)):
        assert not path.exists()
        number += step
    assert number > 20
    assert not path.with_name("backup.tar.partial").exists(), "the next backup replaces the file of a killed one"
    assert list((small.data / "tmp").iterdir()) == []
    elsewhere.manage("restore", str(path))
    elsewhere.assert_complete()


@twins("step", 0.12, 0.05)
def test_a_restore_killed_at_any_moment_can_be_run_again(
    elsewhere: Installation, backup: Path, tmp_path: Path, step: float
) -> None:
    before = cpu_of_children()
    Installation(tmp_path / "undisturbed").manage("restore", str(backup))
    whole, tried = cpu_of_children() - before, 0
    while elsewhere.killed("restore", str(backup), after=whole * (0.2 + step * tried)):
        tried += 1
    assert tried > 3
    elsewhere.assert_complete()


@twins("step", 3, 1)
def test_a_restore_killed_while_it_replaces_data_can_be_run_again(
    elsewhere: Installation, backup: Path, step: int
) -> None:
    elsewhere.ready()
    old = {path.name for path in (elsewhere.data / "files").glob("*/*")}
    calls = "os.rename pathlib.Path.rename pathlib.Path.replace pathlib.Path.write_text pathlib.Path.unlink"
    number = half = 0
    while elsewhere.killed_at(number, calls, "restore", str(backup), "--replace"):
        number += step
        if (elsewhere.data / "restore_unfinished").exists():
            half += 1
            if half in {1, 5}:
                for words in (
                    ["run", "worker"],
                    ["prune", "--yes"],
                    ["backup", str(elsewhere.data.parent / "mix.tar")],
                ):
                    assert "isn't finished" in elsewhere.attempt(*words).stderr
    assert half > 6 // step, "the kill must hit each step once, or every third step"
    elsewhere.assert_complete()
    kept = {path.name for path in elsewhere.data.glob("replaced-*/files/*/*")}
    assert old <= kept, "no previous data is lost"
