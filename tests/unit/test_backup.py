"""What goes into a backup, in which order, while files come and go."""

import io
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pytest

from dashboard import backup
from dashboard.backup_archive import Reader, Writer


@pytest.fixture
def mms(settings, tmp_path: Path) -> Path:
    settings.MMS_DIR, settings.FILES_DIR = tmp_path / "mms", tmp_path / "files"
    for folder in ("oci/blobs/sha256", "known", "layers/x", "rootfs/x", "routes", "cache", "builds", "services/one"):
        (settings.MMS_DIR / folder).mkdir(parents=True)
    settings.FILES_DIR.mkdir()
    return settings.MMS_DIR


def blob(mms: Path, content: bytes) -> Path:
    path = mms / "oci/blobs/sha256" / sha256(content).hexdigest()
    path.write_bytes(content)
    return path


def part_of(what: str) -> backup.Part:
    return next(part for part in backup.parts() if part.what == what)


def test_an_index_is_read_before_the_blobs_it_names(mms: Path):
    (mms / "oci/index.json").write_text("{}")
    blob(mms, b"old")
    files = backup._files(part_of("images"))
    assert next(files).name == "index.json"
    late = blob(mms, b"named by a later index")
    assert late in list(files), "so what an index names is there, whenever it was written"


def test_a_file_that_is_deleted_meanwhile_is_left_out_and_counted(mms: Path, monkeypatch):
    kept, pruned = blob(mms, b"kept"), blob(mms, b"pruned")
    target = io.BytesIO()
    writer = Writer(target)
    listed = list(backup._files(part_of("images")))
    pruned.unlink()
    monkeypatch.setattr(backup, "_files", lambda part: iter(listed))
    held = backup._add_part(writer, part_of("images"))
    assert (held.count, held.gone) == (1, 1)
    writer.add_bytes("end", b"")
    writer.finish()
    target.seek(0)
    Reader(target).unpack(mms.parent / "out")
    assert (mms.parent / "out/mms/oci/blobs/sha256" / kept.name).read_bytes() == b"kept"


def test_a_file_that_is_not_what_its_name_says_is_told(mms: Path):
    blob(mms, b"good")
    blob(mms, b"bad").write_bytes(b"rotten")
    held = backup._add_part(Writer(io.BytesIO()), part_of("images"))
    assert (held.count, held.damaged) == (2, 1)


def test_what_can_be_made_again_is_left_out(mms: Path, settings):
    for name in ("layers/x/a", "rootfs/x/a", "routes/a.json", "cache/a", "store.lock", "oci/blobs/sha256/.new-a"):
        (mms / name).write_text("x")
    for name in ("builds/a.log", "services/one/1.log", "services/one/1.log.1"):
        (mms / name).write_text("x")
    (mms / "builds/link.log").symlink_to("/etc/passwd")
    names = {path.relative_to(mms).as_posix() for part in backup.parts() for path in backup._files(part)}
    assert names == {"builds/a.log", "services/one/1.log", "services/one/1.log.1"}


def test_two_backups_at_once_are_refused(settings):
    with backup.locked(settings.RUN_DIR / "backup.lock"), pytest.raises(backup.Failed, match="Another backup"):
        backup.back_up(io.BytesIO(), lambda held: None, with_database=False)


def test_a_file_takes_its_name_only_when_it_is_whole(tmp_path: Path):
    path = tmp_path / "backup.tar"
    with suppress(RuntimeError), backup.whole_file(path, force=False) as file:
        file.write(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with backup.whole_file(path, force=False) as file:
        file.write(b"whole")
        assert not path.exists()
        with pytest.raises(backup.Failed, match="Another backup"), backup.whole_file(path, force=False):
            pass
    assert path.read_bytes() == b"whole"
