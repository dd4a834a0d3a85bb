"""Layers and the store: reproducible bytes, readable by other tools, unpacked, and repaired after damage."""

import gzip
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from mms.images.store import layers, layout
from mms.images.store.layers import DamagedBlobError, unpack_layer, write_layer
from mms.images.store.layout import MANIFEST_TYPE, NotInStoreError, Store


def make_tree(root: Path, seed: int = 1) -> Path:
    """Make a tree with text, noise, an empty file and folder, a program, a hard link, and a file of several blocks."""
    noise = random.Random(seed).randbytes(1_500_000)
    (root / "app/empty").mkdir(parents=True)
    (root / "app/text").write_text("words " * 1000)
    (root / "app/nothing").touch()
    (root / "app/mixed").write_bytes(noise + bytes(1_500_000))
    (root / "app/program").write_text("#!/bin/sh\n")
    (root / "app/program").chmod(0o700)
    (root / "app/models/m/1").mkdir(parents=True)
    os.link(root / "app/mixed", root / "app/models/m/1/mixed")
    return root


def contents(root: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


def test_the_same_tree_gives_the_same_bytes(tmp_path: Path) -> None:
    first = make_tree(tmp_path / "first")
    os.utime(first / "app/text", (1, 1))
    (first / "app/text").chmod(0o600)
    second = make_tree(tmp_path / "second")
    shutil.move(second / "app/nothing", second / "app/elsewhere")  # change the order on the disk
    shutil.move(second / "app/elsewhere", second / "app/nothing")
    assert write_layer(first, tmp_path / "a") == write_layer(second, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_number_of_processors_does_not_affect_the_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree, found = make_tree(tmp_path / "tree"), set()
    for workers in (1, 3):
        monkeypatch.setattr(layers, "WORKERS", workers)
        found.add(write_layer(tree, tmp_path / f"{workers}"))
    assert len(found) == 1


def test_the_bytes_match_the_format(tmp_path: Path) -> None:
    """If this fails after a change of the compressor or tar, change FORMAT: old layers would pass for new ones."""
    tree = tmp_path / "tree"
    (tree / "app").mkdir(parents=True)
    (tree / "app/a").write_bytes(bytes(range(256)) * 10)
    layer = write_layer(tree, tmp_path / "blob")
    assert layers.FORMAT == "tar-pax gzip-1m-zlib1"
    assert layer.diff_id == "sha256:e3a5744c32483baf8075e10889620f21da9255e637b21c23fafab2e2acadc0f6"
    assert layer.digest == "sha256:11c2e125512cb860203df6ff542490a623b6f11260e1d7723a91d8e48c045792"


def test_other_tools_read_the_blob(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    layer = write_layer(tree, tmp_path / "blob.gz")
    assert layer.size == (tmp_path / "blob.gz").stat().st_size
    subprocess.run(["gzip", "--test", tmp_path / "blob.gz"], check=True)
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-xzf", tmp_path / "blob.gz", "-C", tmp_path / "out"], check=True)
    assert contents(tmp_path / "out") == contents(tree)


def test_entries_have_no_owner_and_no_time(tmp_path: Path) -> None:
    write_layer(make_tree(tmp_path / "tree"), tmp_path / "blob")
    with tarfile.open(tmp_path / "blob") as tar:
        members = tar.getmembers()
    assert {(member.uid, member.gid, member.uname, member.gname, member.mtime) for member in members} == {
        (0, 0, "", "", 0)
    }
    assert {member.mode for member in members} == {0o755, 0o644}
    assert [member.name for member in members if member.islnk()] == ["app/models/m/1/mixed"]


def test_noise_is_stored_and_text_is_compressed(tmp_path: Path) -> None:
    for name, data in (("noise", random.Random(1).randbytes(3 << 20)), ("text", b"words " * (1 << 19))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(data)
    noise = write_layer(tmp_path / "noise", tmp_path / "noise.gz").size
    text = write_layer(tmp_path / "text", tmp_path / "text.gz").size
    assert 3 << 20 < noise < (3 << 20) * 1.01
    assert text < 100_000


def test_links_in_a_tree_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/link").symlink_to("/etc/passwd")
    with pytest.raises(ValueError, match="link is neither a file nor a folder"):
        write_layer(tmp_path / "tree", tmp_path / "blob")


@pytest.mark.parametrize("change", ["cut", "flip", "other"])
def test_a_damaged_blob_is_detected(tmp_path: Path, change: str) -> None:
    layer = write_layer(make_tree(tmp_path / "tree"), tmp_path / "blob")
    data = bytearray((tmp_path / "blob").read_bytes())
    if change == "cut":
        del data[-20:]
    elif change == "flip":
        data[len(data) // 2] ^= 1
    else:
        data = bytearray(gzip.compress(gzip.decompress(data)[:-1024] + bytes(2048)))
    (tmp_path / "blob").write_bytes(data)
    with pytest.raises(DamagedBlobError):
        unpack_layer(tmp_path / "blob", layer.diff_id, tmp_path / "out")


# --- the store ----------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.prepare()
    return store


def test_a_layer_is_unpacked_read_only_and_found_by_its_key(store: Store, tmp_path: Path) -> None:
    before = contents(make_tree(tmp_path / "tree"))
    layer = store.add_layer("key", tmp_path / "tree")
    assert contents(store.layer_tree(layer)) == before
    assert {path.stat().st_mode & 0o222 for path in store.layer_tree(layer).rglob("*") if path.is_file()} == {0}
    assert store.find_layer("key") == layer
    assert store.find_layer("other") is None
    assert not (tmp_path / "tree").exists()


def test_a_missing_tree_is_unpacked_again(store: Store, tmp_path: Path) -> None:
    before = contents(make_tree(tmp_path / "tree"))
    layer = store.add_layer("key", tmp_path / "tree")
    shutil.rmtree(store.layer_tree(layer))
    assert contents(store.layer_tree(layer)) == before
    again = store.layer_tree(layer)
    assert (again / "app/mixed").samefile(again / "app/models/m/1/mixed")
    assert (again / "app/program").stat().st_mode & 0o777 == 0o555


def test_a_missing_blob_is_not_found_by_its_key(store: Store, tmp_path: Path) -> None:
    layer = store.add_layer("key", make_tree(tmp_path / "tree"))
    store.blob_path(layer.digest).unlink()
    assert store.find_layer("key") is None
    shutil.rmtree(store.layer_tree(layer))
    with pytest.raises(NotInStoreError):
        store.layer_tree(layer)


def test_the_same_layer_added_twice_is_one(store: Store, tmp_path: Path) -> None:
    first = store.add_layer("one", make_tree(tmp_path / "tree"))
    assert store.add_layer("two", make_tree(tmp_path / "tree")) == first
    assert len(list((store.root / "layers").iterdir())) == 1


def test_an_image_id_names_the_newest_manifest(store: Store) -> None:
    old, new = (store.add_json({"schemaVersion": 2, "n": number}, MANIFEST_TYPE) for number in (1, 2))
    store.set_name("image", old)
    store.set_name("other", old)
    store.set_name("image", new)
    assert (store.find_digest("image"), store.find_digest("other")) == (new["digest"], old["digest"])
    with pytest.raises(NotInStoreError):
        store.find_digest("unknown")
    with pytest.raises(NotInStoreError):
        store.read_manifest("sha256:" + "0" * 64)


def test_concurrent_processes_lose_no_image_names(store: Store) -> None:
    program = (
        "import sys; from pathlib import Path; from mms.images.store.layout import Store, MANIFEST_TYPE\n"
        "store = Store(Path(sys.argv[1])); store.prepare()\n"
        "for n in range(20): store.set_name(f'{sys.argv[2]}-{n}', store.add_json({'n': n}, MANIFEST_TYPE))"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, store.root, f"p{number}"]) for number in range(4)]
    assert [process.wait() for process in running] == [0] * 4
    names = {
        entry["annotations"]["org.opencontainers.image.ref.name"]
        for entry in json.loads((store.oci / "index.json").read_bytes())["manifests"]
    }
    assert len(names) == 80


# --- damage by the disk or a kill -----------------------------------------------------------------------------------


def index_of(store: Store) -> dict[str, str]:
    entries = json.loads((store.oci / "index.json").read_bytes())["manifests"]
    return {entry["annotations"]["org.opencontainers.image.ref.name"]: entry["digest"] for entry in entries}


@pytest.mark.parametrize(
    "damage", [b"", b'{"manifests": [', b"[]", b'{"manifests": [{"digest": "sha256:1"}, 7]}', None]
)
def test_a_damaged_index_fails_no_build_and_its_names_are_restored(store: Store, damage: bytes | None) -> None:
    old, new = (store.add_json({"schemaVersion": 2, "n": number}, MANIFEST_TYPE) for number in (1, 2))
    store.set_name("old", old)
    (store.oci / "index.json").unlink() if damage is None else (store.oci / "index.json").write_bytes(damage)
    with pytest.raises(NotInStoreError):
        store.find_digest("old")
    store.set_name("new", new)
    assert index_of(store) == {"new": new["digest"]}
    store.restore_names({"old": old["digest"], "new": new["digest"], "gone": "sha256:" + "0" * 64})
    assert index_of(store) == {"old": old["digest"], "new": new["digest"]}
    entries = json.loads((store.oci / "index.json").read_bytes())["manifests"]
    assert {entry["size"] for entry in entries} == {old["size"]}


@pytest.mark.parametrize("damage", [b"", b'{"schemaVersion":'])
def test_a_damaged_document_counts_as_missing_and_is_rewritten(store: Store, damage: bytes) -> None:
    stored = store.add_json({"schemaVersion": 2}, MANIFEST_TYPE)
    store.blob_path(stored["digest"]).write_bytes(damage)
    with pytest.raises(NotInStoreError, match="damaged"):
        store.read_manifest(stored["digest"])
    store.add_json({"schemaVersion": 2}, MANIFEST_TYPE)
    assert store.read_manifest(stored["digest"]) == {"schemaVersion": 2}


def test_a_truncated_layer_is_not_found_and_is_rewritten(store: Store, tmp_path: Path) -> None:
    layer = store.add_layer("key", make_tree(tmp_path / "tree"))
    blob = store.blob_path(layer.digest)
    blob.chmod(0o600)
    os.truncate(blob, layer.size - 1)
    assert store.find_layer("key") is None
    assert store.add_layer("key", make_tree(tmp_path / "tree")) == layer
    assert blob.stat().st_size == layer.size


def test_a_damaged_layer_is_deleted_so_that_the_next_build_creates_it(store: Store, tmp_path: Path) -> None:
    layer = store.add_layer("key", make_tree(tmp_path / "tree"))
    shutil.rmtree(store.layer_tree(layer))
    blob = store.blob_path(layer.digest)
    blob.chmod(0o600)
    with blob.open("r+b") as file:
        file.seek(layer.size // 2)
        file.write(b"damaged!")
    with pytest.raises(NotInStoreError, match="damaged"):
        store.layer_tree(layer)
    assert store.find_layer("key") is None
    assert not list((store.root / "layers").iterdir())
    assert not list(store.root.glob(".making-*"))


def test_the_newest_trees_are_unpacked_again_after_a_power_failure(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "WRITEBACK_SECONDS", 0.5)
    old = store.add_layer("old", make_tree(tmp_path / "old", seed=1))
    time.sleep(0.6)  # folder timestamps come from the kernel
    before = contents(make_tree(tmp_path / "new", seed=2))
    new = store.add_layer("new", tmp_path / "new")
    for path in store.layer_tree(new).rglob("*"):
        if path.is_file():
            path.chmod(0o600)
            os.truncate(path, 0)
    store.remove_recent_trees()
    assert store._tree(old.diff_id).exists()
    assert not store._tree(new.diff_id).exists()
    assert contents(store.layer_tree(new)) == before


SCRATCH = """
import sys, time; from pathlib import Path; from mms.images.store.layout import Store
with Store(Path(sys.argv[1])).scratch_folder() as folder:
    (folder / "half").write_text("x")
    print(folder, flush=True)
    time.sleep(60)
"""


def test_scratch_folders_of_killed_processes_are_deleted_but_not_of_running_ones(store: Store) -> None:
    making = [
        subprocess.Popen([sys.executable, "-c", SCRATCH, store.root], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    folders = [Path(process.stdout.readline().strip()) for process in making if process.stdout]
    try:
        making[0].kill()
        making[0].wait()
        store.prepare()
        assert [folder.exists() for folder in folders] == [False, True]
    finally:
        making[1].kill()
        making[1].wait()
    with store.scratch_folder() as mine:
        assert list(store.root.glob(".making-*")) == [mine]
    assert not list(store.root.glob(".making-*"))


def test_partial_documents_are_deleted_immediately_only_in_exclusive_use(store: Store) -> None:
    half = store.oci / "blobs/sha256/.new-half"
    half.touch()
    store.prepare()
    assert half.exists()
    store.prepare(exclusive=True)
    assert not half.exists()
