"""Paths of models and assets in /app."""

from pathlib import Path, PurePosixPath

import pytest

from mms.images.plan.placement import (
    PathConflictError,
    PathRegistry,
    Source,
    asset_paths,
    discard,
    link_files,
    model_folder,
)


@pytest.mark.parametrize(
    ("asset_id", "url", "names"),
    [
        ("score", "http://h/x/score.py?key=1", ["score.py"]),
        ("driver", "http://h/score.py", ["driver.py", "score.py"]),
        ("score.py", "http://h/abc123", ["score.py", "abc123"]),
        ("words", "http://h/vocabulary.tar.gz", ["words.tar.gz", "vocabulary.tar.gz"]),
        ("words", "http://h/vocabulary", ["words", "vocabulary"]),
        ("words", "http://h/", ["words"]),
        ("v1.2", "http://h/a.bin", ["v1.2", "a.bin"]),
    ],
)
def test_an_asset_is_placed_at_its_id_and_its_base_name(asset_id: str, url: str, names: list[str]) -> None:
    assert [str(name) for name in asset_paths(asset_id, url)] == names


def test_a_folder_of_files_is_placed_twice_and_stored_once(tmp_path: Path) -> None:
    (tmp_path / "got/deep/empty").mkdir(parents=True)
    (tmp_path / "got/deep/weights").write_text("w")
    source = Source("model m 1", tmp_path / "got")
    link_files(source, [PurePosixPath("."), model_folder("m", 1)], tmp_path / "app", PathRegistry())
    discard(source)
    assert (tmp_path / "app/deep/weights").samefile(tmp_path / "app/models/m/1/deep/weights")
    assert (tmp_path / "app/models/m/1/deep/empty").is_dir()
    assert not (tmp_path / "got").exists()


@pytest.mark.parametrize(
    ("first", "second", "where"),
    [
        ("model.pkl", "model.pkl", "/app/model.pkl"),
        ("data", "data/words.txt", "/app/data"),
        ("data/words.txt", "data", "/app/data"),
    ],
)
def test_a_conflict_names_the_path_and_both_owners(first: str, second: str, where: str) -> None:
    paths = PathRegistry()
    paths.register(PurePosixPath(first), "model iris 1")
    with pytest.raises(PathConflictError, match=rf"{where}: model iris 1 and asset words\."):
        paths.register(PurePosixPath(second), "asset words")


def test_two_owners_can_share_a_folder() -> None:
    paths = PathRegistry()
    paths.register(PurePosixPath("data/a"), "one")
    paths.register(PurePosixPath("data/b"), "two")
