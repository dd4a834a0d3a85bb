"""Paths of models and assets in /app."""

from pathlib import Path, PurePosixPath

import pytest

from mms.images.plan.placement import (
    PathConflictError,
    PathRegistry,
    Placement,
    Source,
    asset_paths,
    discard,
    find_clashes,
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


def item(folder: Path, owner: str, *files: str) -> Source:
    """Create a source: a single file, or a folder with `files`, of which those ending in "/" are empty folders."""
    root = folder / owner
    for name in files:
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_text(owner)
    if not files:
        root.parent.mkdir(parents=True, exist_ok=True)
        root.write_text(owner)
    return Source(owner, root)


def clashes(folder: Path, models: dict[str, list[str]], assets: dict[str, list[str]]) -> dict[str, dict[str, str]]:
    top = PurePosixPath(".")
    found = find_clashes(
        [Placement(item(folder, owner, *files), [top, model_folder(owner, 1)]) for owner, files in models.items()],
        [Placement(item(folder, owner, *files), [top]) for owner, files in assets.items()],
    )
    return {owner: {str(path): other for path, other in paths.items()} for owner, paths in found.items() if paths}


@pytest.mark.parametrize(
    ("models", "assets", "found"),
    [
        ({"a": ["m.pkl"], "b": ["n.pkl"]}, {"s": ["score.py"]}, {}),
        ({"a": ["m.pkl"], "b": ["m.pkl"]}, {}, {"a": {"m.pkl": "b"}, "b": {"m.pkl": "a"}}),
        ({"a": ["m.pkl", "x"], "b": ["m.pkl", "y"]}, {}, {"a": {"m.pkl": "b"}, "b": {"m.pkl": "a"}}),
        ({"a": ["d"], "b": ["d/m.pkl"]}, {}, {"a": {"d": "b"}, "b": {"d/m.pkl": "a"}}),
        ({"a": ["d/m.pkl"], "b": ["d/n.pkl"]}, {}, {}),
        ({"a": ["m.pkl"]}, {"s": ["m.pkl"]}, {"a": {"m.pkl": "s"}}),
        ({"a": ["m.pkl"]}, {"s": ["m.pkl/x"]}, {"a": {"m.pkl": "s"}}),
        ({"a": ["d/m.pkl", "n.pkl"]}, {"s": ["d"]}, {"a": {"d/m.pkl": "s"}}),
        ({"a": ["models"]}, {}, {"a": {"models": "a"}}),
        ({"a": ["d/"]}, {"s": ["d"]}, {"a": {"d": "s"}}),
        ({"a": ["d/"], "b": ["d"]}, {}, {"a": {"d": "b"}, "b": {"d": "a"}}),
        ({"a": ["d"]}, {"s": ["d/"]}, {"a": {"d": "s"}}),
        ({"a": ["d/"], "b": ["d/"]}, {}, {}),
    ],
)
def test_clashing_files_of_models_are_found(
    tmp_path: Path, models: dict[str, list[str]], assets: dict[str, list[str]], found: dict[str, dict[str, str]]
) -> None:
    assert clashes(tmp_path, models, assets) == found


@pytest.mark.parametrize(
    ("models", "assets", "says"),
    [
        ({"a": ["m.pkl"]}, {"s": ["models"]}, "/app/models: a and s"),
        ({"a": ["m.pkl"]}, {"s": ["models/a/1/m.pkl"]}, "/app/models/a/1/m.pkl: a and s"),
        ({}, {"s": ["x"], "t": ["x"]}, "/app/x: s and t"),
    ],
)
def test_other_conflicts_are_errors(
    tmp_path: Path, models: dict[str, list[str]], assets: dict[str, list[str]], says: str
) -> None:
    with pytest.raises(PathConflictError, match=says):
        clashes(tmp_path, models, assets)
