"""Real builds in separate processes: contents of images, reuse of layers, and error messages."""

import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from mms.images.plan.check import MAX_SCRIPT_BYTES
from mms.images.runtimes import HOST_PLATFORM, HOST_PYTHON
from mms.images.store.layers import Layer
from mms.images.store.layout import LAYER_ANNOTATION
from tests.builder import DRIVER, Builder
from tests.doubles.files import running_files
from tests.support.clock import quiet_seconds
from tests.support.wheels import make_wheel
from tests.twins import twins

IRIS = Path(__file__).parent.parents[2] / "examples/iris"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    """Return a store for tests that don't depend on its contents, so that the scoring runtime is built once."""
    with running_files() as files:
        yield Builder(tmp_path_factory.mktemp("builder"), files)


@pytest.fixture
def builder(shared: Builder) -> Builder:
    shared.files.pages.clear()
    shared.files.asked.clear()
    return Builder(shared.folder, shared.files)


def in_app(builder: Builder, digest: str) -> dict[str, bytes]:
    app = builder.store.assemble(digest).app
    return {str(path.relative_to(app)): path.read_bytes() for path in app.rglob("*") if path.is_file()}


def inspect(builder: Builder, image_id: str) -> dict[str, Any]:
    command = ["skopeo", "inspect", f"oci:{builder.store.oci}:{image_id}"]
    return dict(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))


needs_skopeo = pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed")


# --- contents of an image -----------------------------------------------------------------------------------------


def test_models_assets_and_driver_are_placed_as_documented(builder: Builder) -> None:
    builder.files.put("/words.txt", b"words")
    built = builder.build(assets=[builder.asset(), builder.asset("vocabulary", "/words.txt")])
    assert in_app(builder, built.digest) == {
        "model.pkl": b"the model",
        "models/iris/1/model.pkl": b"the model",
        "score.py": DRIVER,
        "vocabulary.txt": b"words",
        "words.txt": b"words",
    }


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/my%20model.pkl", "my model.pkl"),
        ("/Mod%C3%A8le%20final%20(v2).pkl", "Modèle final (v2).pkl"),
        ("/100%25%20%23%3F%26'.pkl", "100% #?&'.pkl"),
    ],
)
def test_file_names_are_preserved(builder: Builder, path: str, name: str) -> None:
    builder.files.put(path, b"x")
    built = builder.build(models=[builder.model(path=path)], assets=[builder.asset(), builder.asset("other", path)])
    files = in_app(builder, built.digest)
    assert {name, "other.pkl", f"models/iris/1/{name}"} <= files.keys()
    assert f"{name} is only at models/iris/1/{name}, because asset other has the same path" in built.log


def test_models_with_the_same_file_name_are_only_in_their_own_folders(builder: Builder) -> None:
    builder.files.put("/b/model.pkl", b"another model")
    models = [builder.model("a"), builder.model("b", 2, "/b/model.pkl"), builder.model("c", 1, "/b/model.pkl?v=2")]
    built = builder.build(models=models)
    assert in_app(builder, built.digest) == {
        "models/a/1/model.pkl": b"the model",
        "models/b/2/model.pkl": b"another model",
        "models/c/1/model.pkl": b"another model",
        "score.py": DRIVER,
    }
    assert "model b 2: model.pkl is only at models/b/2/model.pkl, because model a 1 has the same path" in built.log
    alone = builder.build(models=models[:1])
    assert in_app(builder, alone.digest)["model.pkl"] == b"the model"


def test_assets_with_the_same_file_name_are_only_at_their_ids(builder: Builder) -> None:
    for folder in ("a", "b"):
        builder.files.put(f"/{folder}/config.json", folder.encode())
    builder.files.put("/old/score.py", b"another script")
    builder.files.put("/config.json", b"of the model")
    ids = {"a": "/a/config.json", "b": "/b/config.json", "other": "/old/score.py"}
    assets = [builder.asset(), *(builder.asset(id, path) for id, path in ids.items())]
    built = builder.build(models=[builder.model(path="/config.json")], assets=assets)
    assert in_app(builder, built.digest) == {
        "a.json": b"a",
        "b.json": b"b",
        "other.py": b"another script",
        "score.py": DRIVER,
        "models/iris/1/config.json": b"of the model",
    }
    assert "asset a: config.json is only at a.json, because asset b has the same path" in built.log
    assert "asset other: score.py is only at other.py, because asset score has the same path" in built.log


def test_assets_and_the_driver_replace_files_of_models_in_the_working_directory(builder: Builder) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in ("score.py", "words.txt", "weights/1.bin", "notes/"):
            archive.writestr(name, b"of the model" if not name.endswith("/") else b"")
    builder.files.put("/net.zip", packed.getvalue())
    builder.files.put("/words.txt", b"words")
    assets = [builder.asset(), builder.asset("words", "/words.txt"), builder.asset("notes", "/model.pkl")]
    built = builder.build(models=[builder.model("net", 1, "/net.zip", unpack=True)], assets=assets)
    files = in_app(builder, built.digest)
    assert (files["score.py"], files["words.txt"]) == (DRIVER, b"words")
    assert files["weights/1.bin"] == files["models/net/1/score.py"] == b"of the model"
    assert files["models/net/1/words.txt"] == b"of the model"
    assert "model net 1: score.py is only at models/net/1/score.py, because asset score has the same path" in built.log


def test_archives_are_unpacked_if_required(builder: Builder) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        info = tarfile.TarInfo("net/weights.bin")
        info.size = 7
        archive.addfile(info, io.BytesIO(b"weights"))
    builder.files.put("/net.tar.gz", packed.getvalue())
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("lib/clean.py", "x = 1")
    builder.files.put("/lib.zip", packed.getvalue())
    built = builder.build(
        models=[builder.model("net", 3, "/net.tar.gz", unpack=True)],
        assets=[builder.asset(), builder.asset("lib", "/lib.zip", unpack=True)],
    )
    assert in_app(builder, built.digest) == {
        "net/weights.bin": b"weights",
        "models/net/3/net/weights.bin": b"weights",
        "lib/clean.py": b"x = 1",
        "score.py": DRIVER,
    }


def test_app_json_lists_the_driver_models_and_schema(builder: Builder) -> None:
    builder.files.put("/s.json", b'{"input": {"data": {"type": "array"}}}')
    built = builder.build(assets=[builder.asset("drive"), builder.asset("schema", "/s.json")], driver="drive")
    image = builder.store.assemble(built.digest)
    assert image.meta == json.loads(image.app_json.read_bytes())
    assert image.meta == {
        "driver": "drive.py",
        "schema": "schema.json",
        "models": [{"name": "iris", "version": 1, "path": "models/iris/1"}],
        "runtime_type": "Python",
    }
    assert (image.python, image.platform, image.site) == (HOST_PYTHON, HOST_PLATFORM, None)
    assert (image.runtime / "scoring/__main__.py").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[]", "it must be a JSON object, not []."),
        (b"not json", "it is not JSON: Expecting value"),
        (b'{"input": 7}', "input must be a JSON object with a schema for each field, not 7."),
        (b"\xff", "it isn't UTF-8 text"),
        (b'{"type": "object"}', 'it has none of the keys "input"'),
        (b'{"input": {"age": {"type": "number", "minimum": "0"}}}', 'input.age.minimum must be a number, not "0".'),
    ],
)
def test_a_schema_that_the_service_could_not_use_is_refused_by_field_and_keyword(
    builder: Builder, content: bytes, reason: str
) -> None:
    builder.files.put("/schema.json", content)
    error = builder.build(assets=[builder.asset(), builder.asset("schema", "/schema.json")]).error
    assert error["code"] == "SchemaInvalid"
    assert f"The schema asset schema.json can't be used: {reason}" in error["message"]
    assert error["step"] == "fetch"
    assert error["details"][0]["target"] == "asset schema"


def test_a_schema_without_fields_is_valid(builder: Builder) -> None:
    builder.files.put("/schema.json", b'\xef\xbb\xbf{"example": [1, 2]}')
    built = builder.build(assets=[builder.asset(), builder.asset("schema", "/schema.json")])
    assert builder.store.assemble(built.digest).meta["schema"] == "schema.json"
    assert "schema.json defines no request fields" in built.log


def test_the_image_config_is_complete_and_reproducible(builder: Builder) -> None:
    built = builder.build(description="a secret plan")
    config = builder.store.read_config(built.digest)
    assert config["config"]["Entrypoint"] == ["python3", "-P", "-m", "scoring"]
    assert config["config"]["User"] == "65534:65534"
    assert config["config"]["WorkingDir"] == "/app"
    assert "PYTHONPATH=/opt/mms/runtime:/opt/mms/site" in config["config"]["Env"]
    assert {"USER=nobody", "HOME=/tmp", "AZUREML_MODEL_DIR=/app/models"} <= set(config["config"]["Env"])
    assert "secret" not in json.dumps(config)
    assert len(config["rootfs"]["diff_ids"]) == len(config["history"]) == 3


# --- reuse and reproducibility ------------------------------------------------------------------------------------


def test_the_same_parts_give_the_same_image_and_reuse_its_layers(builder: Builder) -> None:
    first, second = builder.build(), builder.build()
    assert first.digest == second.digest
    assert all(layer["reused"] for layer in second.result["layers"])


def test_another_store_produces_the_same_digest(builder: Builder, tmp_path: Path) -> None:
    make_wheel(tmp_path, "onething", "1.0", scripts=("onething",))
    builder.files.put("/score.py", DRIVER + b"# for two stores\n")
    pip = {"find_links": str(tmp_path)}
    first = builder.build(pip, pip_requirements="onething")
    (tmp_path / "a much longer name for a folder").mkdir()
    os.utime(tmp_path / "onething-1.0-py3-none-any.whl", (1, 1))
    again = Builder(tmp_path / "a much longer name for a folder", builder.files)
    builder.files.put("/score.py", DRIVER + b"# for two stores\n")
    second = again.build(pip, pip_requirements="onething")
    assert not any(layer["reused"] for layer in second.result["layers"])
    assert second.digest == first.digest


def test_a_syntax_error_in_the_driver_fails_the_build_with_its_line(builder: Builder) -> None:
    builder.files.put("/score.py", b"def init():\n    pass\n\ndef run(body)\n    return body\n")
    error = builder.build().error
    assert error["code"] == "DriverUnreadable"
    assert "'score' is not valid Python in line 4: expected ':'" in error["message"]
    assert error["details"][0]["target"] == "driverProgram"


@pytest.mark.parametrize(
    ("path", "content", "says"),
    [
        ("/score.txt", DRIVER, "The driver 'score' is the file 'score.txt', but a driver must be a Python script."),
        ("/score.ipynb", b"{}", "The driver 'score' is a Jupyter notebook (score.ipynb)"),
        ("/score.py", b"def init(): ...", "The driver 'score' has no function run() at its top level."),
    ],
)
def test_a_driver_that_cannot_work_fails_the_build_by_name(
    builder: Builder, path: str, content: bytes, says: str
) -> None:
    builder.files.put(path, content)
    error = builder.build(assets=[builder.asset(path=path)]).error
    assert error["code"] == "DriverUnreadable"
    assert says in error["message"]
    assert error["details"][0]["target"] == "driverProgram"
    assert not any(requested.endswith(".pkl") for requested in builder.files.asked) or path == "/score.py"


def test_a_driver_without_an_extension_is_placed_as_a_script(builder: Builder) -> None:
    builder.files.put("/raw", DRIVER)
    built = builder.build(assets=[builder.asset(path="/raw")])
    image = builder.store.assemble(built.digest)
    assert image.meta["driver"] == "score.py"
    assert {"score.py", "score", "raw"} <= {path.name for path in image.app.iterdir()}


@pytest.mark.parametrize("path", ["/score.py", "/schema.json"])
def test_a_driver_or_schema_of_more_than_1_mb_is_refused_before_it_is_parsed(builder: Builder, path: str) -> None:
    builder.files.put("/schema.json", b'{"input": {}}')
    builder.files.put(path, b"[" + b"1," * 4_000_000 + b"1]")
    error = builder.build(assets=[builder.asset(), builder.asset("schema", "/schema.json")]).error
    assert (error["code"], error["step"]) == ("FetchFailed", "fetch")
    assert "the file is larger than 1048576 bytes. A driver or schema can be up to 1 MB." in error["message"]


def test_other_assets_may_be_larger(builder: Builder) -> None:
    builder.files.put("/labels.json", b"[" + b"1," * 600_000 + b"1]")
    assert builder.build(assets=[builder.asset(), builder.asset("labels", "/labels.json")]).digest


@pytest.mark.slow
def test_the_largest_driver_is_parsed_within_the_memory_limit_of_a_builder(builder: Builder) -> None:
    source = DRIVER + b"x = [" + b"1," * ((MAX_SCRIPT_BYTES - len(DRIVER)) // 2 - 4) + b"1]"
    builder.files.put("/score.py", source)
    assert builder.build(memory=2 * 1024**3).digest


def test_a_build_that_needs_more_memory_than_allowed_says_so(builder: Builder) -> None:
    builder.files.put("/score.py", DRIVER + b"x = [" + b"1," * 500_000 + b"1]")
    error = builder.build(memory=128 * 1024**2).error
    assert error["code"] in {"DriverUnreadable", "OutOfMemory"}
    assert "too long" in error["message"] or "MMS_BUILD_MEMORY" in error["message"]


def test_a_changed_driver_changes_one_layer(builder: Builder) -> None:
    builder.build()
    builder.files.put("/score.py", DRIVER + b"# changed\n")
    built = builder.build()
    assert [layer["what"] for layer in built.result["layers"] if not layer["reused"]] == ["app"]


def test_a_model_has_the_same_layer_in_another_image(builder: Builder) -> None:
    builder.files.put("/other.pkl", b"another model")
    first = builder.build()
    second = builder.build(models=[builder.model("other", 1, "/other.pkl"), builder.model()])
    shared = {layer["digest"] for layer in first.result["layers"]} & {
        layer["digest"] for layer in second.result["layers"]
    }
    assert {layer["what"] for layer in second.result["layers"] if layer["digest"] in shared} == {
        "runtime",
        "model iris 1",
    }


def test_a_missing_layer_is_built_again(builder: Builder) -> None:
    first = builder.build()
    lost = next(layer for layer in first.result["layers"] if layer["what"] == "model iris 1")
    builder.store.blob_path(lost["digest"]).unlink()
    shutil.rmtree(builder.store.layer_tree(Layer(lost["digest"], lost["diff_id"], lost["size"])))
    assert builder.build().digest == first.digest
    assert builder.store.blob_path(lost["digest"]).exists()


def test_the_result_lists_models_layers_and_the_reference(builder: Builder) -> None:
    built = builder.build()
    digest = hashlib.sha256(b"the model").hexdigest()
    assert built.result["models"] == [{"name": "iris", "version": 1, "sha256": digest, "size": 9}]
    assert built.result["reference"] == f"oci://local/local/iris@{built.digest}"
    manifest = builder.store.read_manifest(built.digest)
    assert [layer["annotations"][LAYER_ANNOTATION] for layer in manifest["layers"]] == [
        layer["what"] for layer in built.result["layers"]
    ]


@needs_skopeo
def test_skopeo_agrees_on_the_digest(builder: Builder) -> None:
    spec_ids = []
    for _ in range(2):
        spec = builder.spec()
        process = builder.start(spec)
        assert process.wait() == 0
        spec_ids.append((spec["image_id"], json.loads(Path(spec["result"]).read_bytes())["digest"]))
    for image_id, digest in spec_ids:
        seen = inspect(builder, image_id)
        assert seen["Digest"] == digest
        assert seen["Architecture"] == HOST_PLATFORM.partition("/")[2]


# --- requirements -------------------------------------------------------------------------------------------------


def test_requirements_are_locked_with_hashes_and_installed(builder: Builder, tmp_path: Path) -> None:
    make_wheel(tmp_path, "onething", "1.0", requires="otherthing>=1")
    make_wheel(tmp_path, "otherthing", "2.0")
    built = builder.build({"find_links": str(tmp_path)}, pip_requirements="onething==1.0\n")
    assert [line.split()[0] for line in built.result["lock"].splitlines() if "==" in line] == [
        "onething==1.0",
        "otherthing==2.0",
    ]
    assert built.result["lock"].count("--hash=sha256:") == 2
    assert str(tmp_path) not in built.result["lock"]
    image = builder.store.assemble(built.digest)
    assert image.site
    assert {"onething.py", "otherthing.py", "__pycache__"} <= {path.name for path in image.site.iterdir()}


def test_packages_contain_no_paths_of_this_machine(builder: Builder, tmp_path: Path) -> None:
    make_wheel(tmp_path, "scripted", "1.0", scripts=("scripted",))
    built = builder.build({"find_links": str(tmp_path)}, pip_requirements="scripted")
    site = builder.store.assemble(built.digest).site
    assert site
    assert (site / "bin/scripted").read_text().startswith("#!/usr/bin/env python3\n")
    for path in site.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert str(tmp_path).encode() not in data, path
            assert str(builder.folder).encode() not in data, path
            assert sys.prefix.encode() not in data, path
    run = subprocess.run(
        [site / "bin/scripted"],
        env={"PYTHONPATH": str(site), "PATH": str(Path(sys.executable).parent)},
        capture_output=True,
        text=True,
    )
    assert run.stdout == "1.0\n"


def test_a_lock_is_reused_without_contacting_the_index(builder: Builder, tmp_path: Path) -> None:
    make_wheel(tmp_path, "steady", "1.0")
    pip = {"find_links": str(tmp_path)}
    first = builder.build(pip, pip_requirements="steady")
    shutil.rmtree(tmp_path)
    second = builder.build({"index_url": "http://127.0.0.1:1/simple"}, pip_requirements="# again\nsteady\n")
    assert second.digest == first.digest


def test_a_package_whose_hash_differs_from_the_lock_is_not_installed(builder: Builder, tmp_path: Path) -> None:
    make_wheel(tmp_path, "swapped", "1.0")
    pip = {"find_links": str(tmp_path)}
    first = builder.build(pip, pip_requirements="swapped")
    site = next(layer for layer in first.result["layers"] if layer["what"] == "site")
    builder.store.blob_path(site["digest"]).unlink()
    shutil.rmtree(builder.store.root / "cache/uv")
    make_wheel(tmp_path, "swapped", "1.0", scripts=("evil",))
    error = builder.build(pip, pip_requirements="swapped").error
    assert (error["code"], error["step"]) == ("PackagesFailed", "packages")
    assert "hash" in error["message"].lower()


def test_a_source_distribution_is_not_built(builder: Builder, tmp_path: Path) -> None:
    folder, marker = tmp_path / "evil_source_only-1.0", tmp_path / "ran"
    folder.mkdir()
    (folder / "setup.py").write_text(
        f"open({str(marker)!r}, 'w'); from setuptools import setup; setup(name='evil_source_only')"
    )
    (folder / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: evil_source_only\nVersion: 1.0\n")
    with tarfile.open(tmp_path / "evil_source_only-1.0.tar.gz", "w:gz") as archive:
        archive.add(folder, "evil_source_only-1.0")
    error = builder.build({"find_links": str(tmp_path)}, pip_requirements="evil-source-only").error
    assert error["code"] == "RequirementsFailed"
    assert not marker.exists()


def test_an_unknown_package_is_reported_with_uvs_message(builder: Builder, tmp_path: Path) -> None:
    error = builder.build({"find_links": str(tmp_path), "no_index": "1"}, pip_requirements="no-such-package-here").error
    assert (error["code"], error["step"]) == ("RequirementsFailed", "requirements")
    said = (
        "Step requirements: No solution found when resolving dependencies: Because no-such-package-here was not found"
    )
    assert error["message"].startswith(said)
    assert error["details"][-1]["target"] == "log"
    assert "Step 3/6 requirements" in error["details"][-1]["message"]


@pytest.mark.slow
def test_all_requirements_without_a_wheel_are_named_with_the_newest_that_has_one(
    builder: Builder, tmp_path: Path
) -> None:
    make_wheel(tmp_path, "goodthing", "1.0")
    make_wheel(tmp_path, "versioned", "2.1")
    make_wheel(tmp_path, "versioned", "2.0")
    make_wheel(tmp_path, "needy", "1.0", requires="oldthing")
    for name, version in (("oldthing", "1.0"), ("versioned", "1.0")):
        wheel = make_wheel(tmp_path, name, version)
        wheel.rename(wheel.with_name(f"{name}-{version}-cp36-cp36m-any.whl"))
    lines = ["goodthing", "oldthing", "versioned==1.0", "versioned-typo", "needy", "goodthing==7 ; python_version<'3'"]
    pip = {"find_links": str(tmp_path), "no_index": "1"}
    message = builder.build(pip, pip_requirements="\n".join(lines)).error["message"]
    found = message.partition(f"Requirements without a wheel for Python {HOST_PYTHON}:\n")[2].splitlines()
    assert [line.partition(". Because")[0] for line in found] == [
        "- needy: a package that it needs can't be installed",
        f"- oldthing: no version has a wheel for Python {HOST_PYTHON}, and source distributions aren't built",
        "- versioned-typo: the package index doesn't have it. Check the name",
        "- versioned==1.0: no wheel; the newest version with a wheel is 2.1",
        "Change them, then build again.",
    ]
    missing = builder.build(pip, pip_requirements="versioned==9").error["message"]
    assert "- versioned==9: there is no such version; the newest version with a wheel is 2.1" in missing


def test_requirements_that_conflict_are_reported_with_the_python_version(builder: Builder, tmp_path: Path) -> None:
    make_wheel(tmp_path, "base", "1.0")
    make_wheel(tmp_path, "base", "2.0")
    make_wheel(tmp_path, "needsold", "1.0", requires="base<2")
    pip = {"find_links": str(tmp_path), "no_index": "1"}
    message = builder.build(pip, pip_requirements="needsold\nbase==2.0").error["message"]
    assert "needsold" in message
    assert f"The versions are for Python {HOST_PYTHON}, and only wheels are installed." in message


def test_only_the_configuration_that_the_site_names_is_read(
    builder: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files in parent folders and the user's folder, and variables, name an index that must not be used."""
    make_wheel(tmp_path, "configured", "1.0")
    index = builder.files.url + "/index"
    home = tmp_path / "home"
    for folder in (home / ".config/uv", home / ".config/pip", home / ".pip"):
        folder.mkdir(parents=True)
    uv_toml = f'index-url = "{index}"\nextra-index-url = ["{index}"]\n'
    pip_conf = f"[global]\nindex-url = {index}\nextra-index-url = {index}\n"
    for folder in (builder.folder, builder.tmp.parent, builder.store.root, home / ".config/uv"):
        (folder / "uv.toml").write_text(uv_toml)
        (folder / "pyproject.toml").write_text(f'[tool.uv]\n{uv_toml}[tool.uv.pip]\nindex-url = "{index}"\n')
    (home / ".config/pip/pip.conf").write_text(pip_conf)
    (home / ".pip/pip.conf").write_text(pip_conf)
    (home / ".netrc").write_text("machine 127.0.0.1 login user password secret\n")
    names = ("INDEX", "INDEX_URL", "DEFAULT_INDEX", "EXTRA_INDEX_URL")
    for name in (f"{prefix}_{name}" for prefix in ("UV", "PIP") for name in names):
        monkeypatch.setenv(name, index)
    monkeypatch.setenv("UV_CONFIG_FILE", str(builder.folder / "uv.toml"))
    monkeypatch.setenv("PIP_CONFIG_FILE", str(home / ".pip/pip.conf"))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(home / ".config"))
    built = builder.build({"find_links": str(tmp_path)}, pip_requirements="configured")
    assert built.code == 0, built.log
    assert not [path for path in builder.files.asked if path.startswith("/index")]


def test_a_configuration_that_cannot_be_read_fails_the_build(builder: Builder, tmp_path: Path) -> None:
    error = builder.build(pip_config=str(tmp_path / "missing"), pip_requirements="unconfigured").error
    assert "MMS_PIP_CONFIG can't be used" in error["message"]


def test_a_password_in_the_index_url_is_redacted(builder: Builder) -> None:
    index = {"index_url": "http://user:pl4nted@127.0.0.1:1/simple", "retries": "0"}
    built = builder.build(index, pip_requirements="anything")
    assert built.error["code"] == "RequirementsFailed"
    assert "pl4nted" not in built.log + json.dumps(built.result)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_requirements_from_windows_programs_are_read(builder: Builder, tmp_path: Path, encoding: str) -> None:
    make_wheel(tmp_path, "onething", "1.0")
    make_wheel(tmp_path, "otherthing", "2.0")
    url = builder.files.put("/requirements.txt", "# Modèle\r\nonething\r\n".encode(encoding))
    conda = builder.files.put(
        "/conda.yml", "dependencies:\r\n- python=3\r\n- pip:\r\n  - otherthing\r\n".encode(encoding)
    )
    built = builder.build({"find_links": str(tmp_path)}, pip_requirements=url, conda_env_file=conda)
    assert "onething==1.0, otherthing==2.0" in built.log


def test_a_driver_and_a_schema_from_windows_programs_are_converted(builder: Builder) -> None:
    source = DRIVER.decode().replace("pass", "pass  # Modèle").replace("\n", "\r\n")
    builder.files.put("/score.py", source.encode("utf-16"))
    builder.files.put("/schema.json", '\ufeff{"input": {"é": {"type": "string"}}}'.encode("utf-16-le"))
    built = builder.build(assets=[builder.asset(), builder.asset("schema", "/schema.json")])
    assert "asset score: converted from UTF-16-LE to UTF-8" in built.log
    assert "schema.json defines the request fields: é" in built.log
    files = in_app(builder, built.digest)
    assert files["score.py"] == source.encode()
    assert json.loads(files["schema.json"]) == {"input": {"é": {"type": "string"}}}


def test_requirements_in_another_encoding_are_rejected_with_their_line(builder: Builder) -> None:
    url = builder.files.put("/requirements.txt", "six\n# Modèle\n".encode("latin-1"))
    error = builder.build(pip_requirements=url).error
    assert "/requirements.txt isn't UTF-8 text: line 2 has the byte 0xe8. Save it as UTF-8" in error["message"]


def test_requirements_and_conda_files_are_downloaded_from_urls(builder: Builder, tmp_path: Path) -> None:
    make_wheel(tmp_path, "onething", "1.0")
    make_wheel(tmp_path, "otherthing", "2.0")
    url = builder.files.put("/requirements.txt", b"\xef\xbb\xbfonething\n")
    conda = builder.files.put(
        "/conda.yml",
        f"dependencies: [python={HOST_PYTHON}, pip: [otherthing]]".replace(
            "pip: [otherthing]", "{pip: [otherthing]}"
        ).encode(),
    )
    built = builder.build({"find_links": str(tmp_path)}, pip_requirements=f"{url}?key=hmac", conda_env_file=conda)
    assert "onething==1.0, otherthing==2.0" in built.log
    assert "hmac" not in built.log


def test_the_scikit_runtime_adds_unlisted_packages(builder: Builder, tmp_path: Path) -> None:
    make_wheel(tmp_path, "numpy", "0.0.1")
    make_wheel(tmp_path, "scikit_learn", "0.0.1")
    pip = {"find_links": str(tmp_path), "no_index": "1"}
    built = builder.build(pip, runtime_type="ScikitPython", pip_requirements="Scikit_Learn==0.0.1")
    assert "ScikitPython adds numpy, which the requirements don't list" in built.log
    assert "numpy==0.0.1, scikit-learn==0.0.1" in built.log


# --- rejected builds ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code", "step", "says"),
    [
        ({"runtime_type": "SparkPython"}, "RuntimeUnavailable", "check", "Java"),
        ({"driver": ""}, "NoDriver", "check", "driverProgram"),
        ({"driver": "other"}, "NoDriver", "check", "'other'"),
        ({"pip_requirements": "--index-url http://evil.example"}, "BadRequirements", "check", "Requirement 1"),
        ({"pip_requirements": "http://10.0.0.1/requirements.txt"}, "FetchFailed", "check", "private"),
        ({"conda_env_file": "dependencies: [python=2.7]"}, "PythonUnavailable", "check", "Python 2.7"),
        ({"conda_env_file": "dependencies: ['python>=2,<3']"}, "BadRequirements", "check", f"Python {HOST_PYTHON}"),
        ({"conda_env_file": "dependencies: [numpy]"}, "BadRequirements", "check", "numpy"),
        ({"registry": {"location": "ftp://x"}}, "RegistryFailed", "image", "isn't a registry location"),
    ],
)  # fmt: skip
def test_invalid_builds_are_rejected_with_step_and_reason(
    builder: Builder, changes: dict[str, Any], code: str, step: str, says: str
) -> None:
    built = builder.build(**changes)
    assert (built.error["code"], built.error["step"]) == (code, step)
    assert says in built.error["message"]
    assert "Traceback" not in built.log
    assert f"The build failed in step {step}: " in built.log.splitlines()[-1]


def test_the_problems_of_all_requirement_files_are_named_together(builder: Builder) -> None:
    conda = "dependencies: ['conda-forge::numpy=1.26=py311*']"
    lines = builder.build(pip_requirements="six\n-e .", conda_env_file=conda).error["message"].splitlines()
    assert lines[0].startswith("Step check: Requirement 2 is an option (-e .).")
    assert lines[1].startswith("condaEnvFile lists conda packages (conda-forge::numpy=1.26=py311*)")


def test_an_unavailable_runtime_is_rejected_before_downloads(builder: Builder) -> None:
    builder.build(runtime_type="CNTKPython")
    assert builder.files.asked == []


def test_a_missing_model_is_named_in_the_error(builder: Builder) -> None:
    error = builder.build(models=[builder.model("flowers", 7, "/gone.pkl")]).error
    assert error["message"] == (
        f"Step fetch: model flowers 7: Couldn't download {builder.files.url}/gone.pkl: "
        "the server responded with 404 Not Found. Check the URL and that the file exists."
    )
    assert error["details"][0]["target"] == "model flowers 7"


def test_a_malicious_archive_is_rejected_by_name(builder: Builder) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("../evil", "x")
    builder.files.put("/evil.zip", packed.getvalue())
    error = builder.build(models=[builder.model("evil", 1, "/evil.zip", unpack=True)]).error
    assert error["code"] == "UnpackFailed"
    assert error["message"].startswith("Step fetch: model evil 1: '../evil' leads out")


@pytest.mark.parametrize(
    ("models", "assets", "path"),
    [
        ([("iris", 1)], ["models"], "/app/models: model iris 1 and asset models"),
        ([("iris", 1)], ["score.py"], "/app/score.py: asset score and asset score.py"),
    ],
)
def test_a_path_conflict_names_both_items(
    builder: Builder, models: list[tuple[str, int]], assets: list[str], path: str
) -> None:
    builder.files.put("/data", b"x")
    error = builder.build(
        models=[builder.model(name, version) for name, version in models],
        assets=[builder.asset(), *(builder.asset(asset_id, "/data") for asset_id in assets)],
    ).error
    assert error["code"] == "NameClash"
    assert path in error["message"]


def test_a_failed_build_names_no_image(builder: Builder) -> None:
    before = (builder.store.oci / "index.json").read_bytes()
    assert builder.build(models=[builder.model(path="/gone")]).code == 1
    assert builder.build(registry={"location": "127.0.0.1:1", "user": "", "password": ""}).code == 1
    assert (builder.store.oci / "index.json").read_bytes() == before


def test_a_terminated_build_leaves_no_files(builder: Builder) -> None:
    def endless(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while True:
            request.wfile.write(bytes(1000))
            time.sleep(0.01)

    builder.files.serve("/endless", endless)
    spec = builder.spec(models=[builder.model(path="/endless")])
    process = builder.start(spec)
    deadline = time.monotonic() + 10
    while not list(builder.tmp.glob("build-*/model-0")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 128 + signal.SIGTERM
    assert list(builder.tmp.iterdir()) == []
    assert not Path(spec["result"]).exists()


def test_the_log_counts_the_steps_with_times(builder: Builder) -> None:
    lines = builder.build().log.splitlines()
    begun = [line[12:].rpartition(":")[0] for line in lines if "done in" in line]
    assert begun == [
        f"Step {number}/6 {name}"
        for number, name in enumerate(["check", "fetch", "requirements", "packages", "layers", "image"], 1)
    ]
    assert all(line[:10].strip().removesuffix("s").strip().replace(".", "").isdigit() for line in lines)


# --- the example, and a large model -------------------------------------------------------------------------------


@needs_skopeo
@pytest.mark.slow
@pytest.mark.serial
def test_the_iris_example_builds_warm_in_two_seconds_and_skopeo_agrees(builder: Builder) -> None:
    for path in IRIS.iterdir():
        builder.files.put(f"/{path.name}", path.read_bytes())
    changes: dict[str, Any] = {
        "assets": [builder.asset(), builder.asset("schema", "/schema.json")],
        "runtime_type": "ScikitPython",
        "pip_requirements": f"{builder.files.url}/requirements.txt",
    }
    cold = builder.build(**changes)
    started = time.monotonic()
    warm = builder.build(**changes, image_id="iris", tag="iris")
    assert quiet_seconds(time.monotonic() - started) < 2
    assert warm.digest == cold.digest == inspect(builder, "iris")["Digest"]


@pytest.mark.slow
@twins("megabytes", 512, 2048)
def test_a_big_model_builds_in_little_memory(tmp_path: Path, megabytes: int) -> None:
    size = megabytes << 20

    def sparse(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(size))
        request.end_headers()
        block = bytes(1 << 20)
        for _ in range(size >> 20):
            request.wfile.write(block)

    with running_files() as files:
        builder = Builder(tmp_path, files)
        files.serve("/big.bin", sparse)
        spec = builder.spec(models=[builder.model("big", 1, "/big.bin")])
        process, peak = builder.start(spec), 0
        while process.poll() is None:
            peak = max(peak, memory(process.pid))
            time.sleep(0.02)
    assert process.returncode == 0
    assert 20 < peak >> 10 < 300, f"{peak >> 10} MB"
    image = builder.store.assemble(json.loads(Path(spec["result"]).read_bytes())["digest"])
    assert (image.app / "big.bin").samefile(image.app / "models/big/1/big.bin")
    assert (image.app / "big.bin").stat().st_size == size
    shutil.rmtree(tmp_path)


def memory(pid: int) -> int:
    """Return the peak resident memory in kB; 0 after the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
