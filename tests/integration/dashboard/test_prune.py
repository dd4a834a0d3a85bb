"""`manage.py prune`: which files count as used, what is deleted, and the confirmation."""

import json
import os
import pty
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as site
from django.core.management import CommandError, call_command

from dashboard.files.store import IncomingFile, StoredFile, delete_if_unused, find_stored, path_of
from dashboard.ops import prune
from deployments.models import Asset, Manifest
from mms import models as mms
from mms.engines.process.program import Program
from mms.engines.process.sandbox import User
from mms.images.packages import install
from mms.images.store import garbage
from mms.images.store.garbage import DiskSpace
from mms.images.store.layout import Store
from mms.operations import builds
from mms.operations import prune as mms_prune
from mms.system.locks import locked
from tests.builder import DRIVER, Builder, Built
from tests.doubles.files import running_files
from tests.doubles.registry import running_registry
from tests.integration.mms.test_registry import add_base, credentials
from tests.site import ROOT, wait_until
from tests.support.lifecycle import present
from tests.support.mms_rows import image_operation
from tests.support.people import make_lab
from tests.support.wheels import make_wheel
from tests.support.workshop import make_account, make_manifest, make_model

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def own_data_folder(settings: Any, tmp_path: Path) -> None:
    """Give every test its own data directory."""
    for name in ("FILES_DIR", "TMP_DIR", "RUN_DIR", "MMS_DIR"):
        folder = tmp_path / name.partition("_")[0].lower()
        folder.mkdir(exist_ok=True)
        setattr(settings, name, folder)


def upload(content: bytes = b"weights", name: str = "model.pkl") -> StoredFile:
    incoming = IncomingFile()
    incoming.write([content])
    return incoming.store(name)


def age(path: Path, days: float = 2) -> Path:
    then = time.time() - days * 86400
    os.utime(path, (then, then))
    return path


def old_upload(**about: Any) -> StoredFile:
    file = upload(**about)
    age(path_of(file.sha256))
    return file


def is_there(file: StoredFile) -> bool:
    return path_of(file.sha256).is_file()


def counts(parts: list[prune.UnusedFiles]) -> dict[str, int]:
    return {part.label: part.count for part in parts if part.count}


UPLOADS, TEMPORARY = "uploads that nothing refers to", "temporary files of killed processes"


# --- uploads ------------------------------------------------------------------------------------------------------


def test_an_unused_upload_is_deleted_and_its_size_reported() -> None:
    file = old_upload(content=b"x" * 100_000)
    [part] = [part for part in prune.preview() if part.count]
    assert (part.label, part.count) == (UPLOADS, 1)
    assert part.size >= 100_000
    assert is_there(file), "preview deletes nothing"
    assert counts(prune.prune()) == {UPLOADS: 1}
    assert not is_there(file)


def names_in_a_model(url: str) -> None:
    make_model(make_account(), url=url)


def names_in_an_asset(url: str) -> None:
    Asset.objects.create(account=make_account(), name="score", url=url)


def names_in_assets_of_a_manifest(url: str) -> None:
    make_manifest(make_account(), asset_list=[{"id": "score", "url": url, "mime_type": "", "unpack": False}])


def names_in_requirements_of_a_manifest(url: str) -> None:
    Manifest.objects.create(account=make_account(), runtime_type="Python", properties={"pip_requirements": url})


def names_in_an_operation(url: str) -> None:
    operation = make_lab().operation
    operation.body = {"name": "iris", "url": url}
    operation.save()


def names_in_a_model_of_the_mms(url: str) -> None:
    mms.Model.objects.filter(pk=present(image_operation().image).manifest.resolved_model_ids[0]).update(url=url)


def names_in_a_manifest_of_the_mms(url: str) -> None:
    asset = {"id": "score", "url": url, "mimeType": "", "unPack": False}
    mms.Manifest.objects.filter(pk=present(image_operation().image).manifest.pk).update(assets=[asset])


NAMING = [
    names_in_a_model,
    names_in_an_asset,
    names_in_assets_of_a_manifest,
    names_in_requirements_of_a_manifest,
    names_in_an_operation,
    names_in_a_model_of_the_mms,
    names_in_a_manifest_of_the_mms,
]


@pytest.mark.parametrize("base", ["today", "https://models.example.com"])
@pytest.mark.parametrize("name_it", NAMING)
def test_an_upload_is_used_while_any_row_refers_to_it_by_any_url(name_it: Any, base: str) -> None:
    used, unused = old_upload(), old_upload(content=b"other")
    name_it(used.url if base == "today" else used.url.replace(site.FILES_URL, base))
    assert counts(prune.prune()) == {UPLOADS: 1}
    assert (is_there(used), is_there(unused)) == (True, False)


def test_a_recent_upload_is_kept_for_an_open_form() -> None:
    file = upload()
    age(path_of(file.sha256), days=0.9)
    assert counts(prune.prune()) == {}
    assert is_there(file)


def test_an_old_upload_that_a_form_shows_counts_as_new() -> None:
    file = old_upload()
    assert find_stored(file.token) == file
    assert counts(prune.prune()) == {}


def test_a_form_submitted_too_late_is_rejected() -> None:
    file = old_upload()
    prune.prune()
    assert find_stored(file.token) is None


def test_an_upload_that_a_form_used_since_it_was_found_unused_is_kept() -> None:
    file = old_upload()
    found = path_of(file.sha256)
    find_stored(file.token)
    assert not delete_if_unused(found, before=time.time() - prune.MIN_AGE_SECONDS)


# --- leftovers of killed processes --------------------------------------------------------------------------------


def test_old_temporary_files_are_deleted_and_recent_ones_kept(settings: Any) -> None:
    folder: Path = settings.TMP_DIR
    for kind in ("upload", "backup"):
        (folder / f"{kind}-old").write_bytes(b"half")
        (folder / f"{kind}-young").write_bytes(b"half")
    for name in ("build-old", "build-young", "restore-old", "restore-young"):
        (folder / name).mkdir()
        (folder / name / "layer").write_bytes(b"half")
    for path in folder.glob("*-old"):
        age(path)
    assert counts(prune.prune()) == {TEMPORARY: 4}
    assert sorted(path.name for path in folder.iterdir()) == [
        "backup-young",
        "build-young",
        "restore-young",
        "upload-young",
    ]


def test_an_upload_that_ends_during_a_preview_is_ignored(settings: Any) -> None:
    over = threading.Event()

    def upload_for_ever() -> None:
        while not over.is_set():
            for path in [settings.TMP_DIR / f"upload-{number}" for number in range(50)]:
                path.touch()
            for path in settings.TMP_DIR.iterdir():
                path.unlink()

    thread = threading.Thread(target=upload_for_ever)
    thread.start()
    try:
        for _ in range(50):
            assert counts(prune.preview()) == {}
    finally:
        over.set()
        thread.join()


# --- images and layers --------------------------------------------------------------------------------------------


@pytest.fixture
def builder(tmp_path: Path) -> Iterator[Builder]:
    with running_files() as served:
        yield Builder(tmp_path, served)


def built_for_a_row(builder: Builder, **about: Any) -> tuple[mms.Image, Built]:
    image = image_operation(state=mms.State.SUCCEEDED).image
    assert image
    built = builder.build(image_id=str(image.pk), **about)
    mms.Image.objects.filter(pk=image.pk).update(digest=built.digest)
    return mms.Image.objects.get(pk=image.pk), built


def age_all(store: Store) -> None:
    for folder in (store.oci / "blobs/sha256", store.root / "layers", store.root / "rootfs", store.root / "known"):
        for path in folder.iterdir():
            age(path)


def running(image: mms.Image, state: str = "active") -> mms.Revision:
    service = mms.Service.objects.create(account=image.account, name="s", image=image, pull_secret="local")
    return mms.Revision.objects.create(service=service, number=1, image=image, state=state)


def other_model(builder: Builder) -> dict[str, Any]:
    builder.files.put("/other.pkl", b"another model" * 1000)
    return {"models": [builder.model("other", path="/other.pkl")]}


@pytest.mark.slow
def test_blobs_of_an_image_are_kept_and_those_of_a_build_without_a_row_deleted(builder: Builder) -> None:
    _, kept = built_for_a_row(builder)
    lost = builder.build(**other_model(builder))
    age_all(builder.store)
    found = counts(prune.prune())
    assert found[garbage.BLOBS] == 4, "a layer with the model, one with the app; config and manifest"
    assert not builder.store.blob_path(lost.digest).exists()
    again = builder.build()
    assert all(layer["reused"] for layer in again.result["layers"])
    assert again.digest == kept.digest
    assert not builder.build(**other_model(builder)).result["layers"][1]["reused"], "rebuilt because it was deleted"
    index = json.loads((builder.store.oci / "index.json").read_bytes())
    assert lost.result["digest"] == builder.build(**other_model(builder)).digest
    assert len(index["manifests"]) == 3


def test_an_image_whose_row_does_not_show_the_end_of_its_build_is_kept(builder: Builder) -> None:
    operation = image_operation(state=mms.State.RUNNING)
    built = builder.build(image_id=str(operation.image_id))
    age_all(builder.store)
    assert garbage.BLOBS not in counts(prune.prune())
    assert builder.store.assemble(built.digest)


def test_new_blobs_are_kept_for_a_retried_build(builder: Builder) -> None:
    builder.build()
    assert counts(prune.prune()) == {}


@pytest.mark.parametrize("state", ["starting", "active", "draining"])
def test_unpacked_layers_are_kept_while_a_service_runs_them(builder: Builder, state: str) -> None:
    image, built = built_for_a_row(builder)
    running(image, state)
    folders = builder.store.assemble(built.digest)
    age_all(builder.store)
    assert counts(prune.prune()) == {}
    assert (folders.app / "score.py").read_bytes() == DRIVER


def test_unpacked_layers_are_kept_while_a_program_runs_whose_row_is_stopped(builder: Builder, settings: Any) -> None:
    image, built = built_for_a_row(builder)
    revision = running(image, "stopped")
    builder.store.assemble(built.digest)
    age_all(builder.store)
    Program.for_revision(settings.RUN_DIR, str(revision.service_id), 1).write(
        "{}", settings.RUN_DIR / "log", User(os.getuid(), os.getgid())
    )
    assert counts(prune.preview()) == {}
    Program.for_revision(settings.RUN_DIR, str(revision.service_id), 1).delete_files()
    assert counts(prune.preview()) == {garbage.TREES: 4}


def test_unused_unpacked_layers_are_deleted_and_unpacked_again(builder: Builder) -> None:
    image, built = built_for_a_row(builder)
    revision = running(image, "stopped")
    builder.store.assemble(built.digest)
    age_all(builder.store)
    parts = prune.prune()
    assert counts(parts) == {garbage.TREES: 4}
    assert sum(part.size for part in parts) > 100_000
    revision.state = "active"
    revision.save()
    assert (builder.store.assemble(built.digest).app / "score.py").read_bytes() == DRIVER


def test_a_base_image_is_kept_while_the_settings_name_it(builder: Builder, settings: Any) -> None:
    with running_registry() as registry:
        add_base(registry)
        reference = f"http://{registry.location}/bases/python:slim"
        base = builder.build(base=reference, registry=credentials(registry)).digest
        layer = builder.store.read_manifest(base)["layers"][0]["digest"]
    age_all(builder.store)
    settings.MMS_BASE_IMAGE = reference
    prune.prune()
    assert builder.store.blob_path(layer).exists()
    settings.MMS_BASE_IMAGE = ""
    age_all(builder.store)
    prune.prune()
    assert not builder.store.blob_path(layer).exists()
    assert not list((builder.store.root / "known").glob("base-*"))


def test_old_locks_and_leftovers_of_killed_processes_are_deleted(builder: Builder) -> None:
    store = builder.store
    store.prepare()
    (store.root / ".making-x").mkdir()
    (store.root / "cache/locks").mkdir(parents=True)
    old, young = store.root / "cache/locks/x.txt", store.root / "cache/locks/y.txt"
    for path in (old, young):
        path.write_text("half")
    age(old)
    assert counts(prune.prune()) == {garbage.RECORDS: 1}
    assert [path.exists() for path in (old, young, store.root / ".making-x")] == [False, True, False]


def test_nothing_is_deleted_from_the_store_while_a_build_runs(builder: Builder) -> None:
    _, _ = built_for_a_row(builder)
    builder.build(**other_model(builder))
    age_all(builder.store)
    file = old_upload()
    with builder.store.in_use():
        for parts in (prune.preview(), prune.prune()):
            [busy] = [part for part in parts if part.note]
            assert "an image is being built" in busy.note
    assert not is_there(file), "the rest is pruned anyway"
    assert counts(prune.prune())[garbage.BLOBS] == 4


def test_a_start_waits_for_the_exclusive_lock_of_the_store_or_skips_the_cleanup(
    builder: Builder, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(settings.MMS_DIR)
    store.prepare()
    monkeypatch.setattr(builds, "STORE_WAIT_SECONDS", 0.2)
    with store.exclusive():
        builds.vacuum()
    assert not (store.root / "boot").exists(), (
        "only the holder of the exclusive lock deletes unpacked layers from before a reboot"
    )
    monkeypatch.setattr(builds, "STORE_WAIT_SECONDS", 20.0)
    with store.exclusive():
        start = threading.Thread(target=builds.vacuum)
        start.start()
        start.join(0.5)
        assert start.is_alive()
    start.join(20)
    assert (store.root / "boot").exists()


@pytest.mark.slow
def test_a_build_holds_the_lock_of_the_store_until_it_ends(builder: Builder) -> None:
    def slowly(request: Any) -> None:
        time.sleep(3)
        request.send_error(404)

    builder.files.serve("/slow", slowly)
    build = builder.start(builder.spec(models=[builder.model(path="/slow")]))
    wait_until(lambda: "/slow" in builder.files.asked, 20, "the build to fetch")
    with builder.store.exclusive() as alone:
        assert not alone
        with builder.store.packages_exclusive() as alone:
            assert not alone
    build.wait(30)
    with builder.store.exclusive() as alone, builder.store.packages_exclusive() as packages:
        assert alone
        assert packages


@pytest.mark.slow
def test_a_rollout_does_not_wait_while_unused_packages_are_removed(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uv takes seconds for it, every hour."""
    built = builder.build()
    asked = []

    def prune_cache(cache: Path) -> None:
        with builder.store.exclusive() as alone:
            asked.append(alone)
        if not alone:
            return  # a rollout would wait for this function
        asked.append(builder.store.assemble(built.digest).app.exists())
        with builder.store.packages_exclusive() as alone:
            asked.append(not alone)

    monkeypatch.setattr(install, "prune_cache", prune_cache)
    mms_prune.trim_packages()
    assert asked == [True, True, True]
    with builder.store.packages_in_use():
        mms_prune.trim_packages()
    assert len(asked) == 3, "a build may be using them"


@pytest.mark.slow
def test_the_package_cache_is_limited(builder: Builder, settings: Any, tmp_path: Path) -> None:
    make_wheel(tmp_path, "onething", "1.0")
    pip = {"find_links": str(tmp_path)}
    first = builder.build(pip, pip_requirements="onething")
    cache = builder.store.root / "cache/uv"
    size = DiskSpace().freed_by(cache)
    mms_prune.trim_packages()
    assert 0 < DiskSpace().freed_by(cache) <= size, "below its limit only unused entries are deleted"
    settings.MMS_CACHE_MAX_BYTES = 0
    with builder.store.in_use():
        mms_prune.trim_packages()
    assert cache.exists(), "a build may be using it"
    mms_prune.trim_packages()
    assert not cache.exists()
    assert builder.build(pip, pip_requirements="onething").digest == first.digest
    builder.files.put("/score.py", DRIVER)
    for lock in (builder.store.root / "cache/locks").iterdir():
        lock.unlink()
    assert builder.build(pip, pip_requirements="onething").digest == first.digest


def test_a_file_with_two_names_frees_space_only_with_the_last_one(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"x" * 10_000)
    other.hardlink_to(one)
    space = DiskSpace()
    assert space.freed_by(one) == 0
    assert space.freed_by(other) >= 10_000


# --- the command --------------------------------------------------------------------------------------------------


def test_only_files_of_this_half_of_the_site_are_checked(settings: Any) -> None:
    settings.SERVE = {"mms"}
    assert UPLOADS not in [part.label for part in prune.preview()]
    settings.SERVE = {"dashboard"}
    assert [part.label for part in prune.preview()] == [UPLOADS, TEMPORARY]


def test_a_dry_run_deletes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    file = old_upload()
    call_command("prune", dry_run=True)
    assert "uploads that nothing refers to                1" in capsys.readouterr().out
    assert is_there(file)


def test_yes_deletes_without_asking(capsys: pytest.CaptureFixture[str]) -> None:
    file = old_upload()
    call_command("prune", yes=True)
    assert capsys.readouterr().out.startswith("Deleted:\n")
    assert not is_there(file)


def manage_prune(folder: Path, answer: str = "") -> str:
    """Run the command in a process, on a terminal if there is an `answer`."""
    environment = os.environ | {
        "DATA_DIR": str(folder),
        "DATABASE_URL": f"sqlite:///{site.DATABASES['default']['NAME']}",
    }
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    stdin = theirs if answer else subprocess.DEVNULL
    command = [sys.executable, "manage.py", "prune"]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdin=stdin, capture_output=True, text=True, timeout=60)
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_is_deleted_during_a_backup(settings: Any) -> None:
    path = age(path_of(upload().sha256))
    with locked(settings.RUN_DIR / "backup.lock"), pytest.raises(CommandError, match="a backup or restore is running"):
        call_command("prune", yes=True)
    assert path.exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("restore_unfinished", "manage.py restore my.tar", "isn't finished.*restore my.tar"),
        ("database", "PostgreSQL db.example:5432/models", "uses PostgreSQL db.example:5432/models"),
    ],
)
def test_nothing_is_deleted_if_the_database_may_not_match_the_files(
    settings: Any, tmp_path: Path, name: str, text: str, message: str
) -> None:
    settings.DATA_DIR = tmp_path
    file = old_upload()
    (tmp_path / name).write_text(text)
    for words in ({"yes": True}, {"dry_run": True}):
        with pytest.raises(CommandError, match=message):
            call_command("prune", **words)
    assert is_there(file)


def test_a_file_that_cannot_be_deleted_is_reported_in_a_sentence(settings: Any) -> None:
    file = old_upload()
    (settings.FILES_DIR / ".lock").unlink()
    (settings.FILES_DIR / ".lock").mkdir()
    with pytest.raises(CommandError, match=r"Not everything was deleted.*Couldn't read or write .*\.lock"):
        call_command("prune", yes=True)
    assert is_there(file)


@pytest.mark.slow
def test_it_asks_on_a_terminal_and_deletes_nothing_without_one(tmp_path: Path) -> None:
    kept = tmp_path / "site" / "files" / "ab" / f"ab{uuid.uuid4().hex}"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"x")
    age(kept)
    assert "there is no terminal to ask on" in manage_prune(tmp_path / "site")
    assert "Deleted" not in manage_prune(tmp_path / "site", "n")
    assert kept.exists()
    assert "Deleted" in manage_prune(tmp_path / "site", "y")
    assert not kept.exists()
