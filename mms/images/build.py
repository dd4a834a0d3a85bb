"""Build one image: `python -m mms.images.build`.

Reads a specification on stdin (see spec.py), prints the build log, writes the result as JSON to the path in the
specification, and exits 0, or 1 if the build failed. Independent of the database and the queue; needs neither a
container daemon nor root. Never runs or loads the user's code.
"""

import importlib.util
import json
import logging
import signal
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from mms.images import runtimes
from mms.images.explain import BuildError, explain
from mms.images.log import Log
from mms.images.packages import install
from mms.images.plan import requirements
from mms.images.plan.check import (
    Plan,
    check,
    check_schema,
    check_script,
    download_policy,
    find_driver,
)
from mms.images.plan.driver import script_paths
from mms.images.plan.placement import (
    Clashes,
    PathRegistry,
    Placement,
    Source,
    asset_paths,
    discard,
    find_clashes,
    link_files,
    model_folder,
)
from mms.images.plan.spec import Asset, Model, Spec
from mms.images.registry.client import Registry
from mms.images.sources.fetch import Fetched, FetchError, base_name, fetch, redact_url
from mms.images.sources.unpack import UnpackError, unpack
from mms.images.store import layers
from mms.images.store.config import image_config
from mms.images.store.layout import (
    APP_JSON_PATH,
    APP_PATH,
    CONFIG_TYPE,
    LAYER_ANNOTATION,
    MANIFEST_TYPE,
    RUNTIME_PATH,
    SITE_PATH,
    Store,
    dump,
)
from mms.system import text

LOCAL_REGISTRY = "oci://local"
SCORING_FOLDER = Path(__file__).resolve().parent.parent / "scoring"
RESULT_RESERVED_BYTES = 1 << 16  # an error has a few kB
MAX_LOGGED_CLASHES = 10  # of each model
PLACEMENT_VERSION = "1"  # part of the keys of model and asset layers; change it with the placement rules


@dataclass(frozen=True)
class BuiltLayer:
    """A layer of the image, and the content that it was built for."""

    what: str
    layer: layers.Layer
    reused: bool


class Build:
    """The build of one image, step by step."""

    def __init__(self, spec: Spec, log: Log, tmp: Path) -> None:
        self.spec, self.log, self.tmp = spec, log, tmp
        self.store = Store(spec.store)
        self.store.prepare()
        self.installer = install.Installer(spec.store / "cache", tmp, log.detail, spec.pip_config)
        self.paths = PathRegistry()
        self.layers: list[BuiltLayer] = []
        self.fetched_models: list[dict[str, Any]] = []

    def run(self) -> dict[str, Any]:
        """Run all steps and return the result. Raises BuildError and the exceptions that `explain` handles."""
        spec, log = self.spec, self.log
        with log.step("check", f"{spec.runtime_type}; models: {len(spec.models)}, assets: {len(spec.assets)}"):
            plan = check(spec, self.store, log, self.tmp)
        with log.step("fetch", "models and assets"):
            models = [(model, *self.fetch(model, f"model-{at}")) for at, model in enumerate(spec.models)]
            assets = [(asset, *self.fetch(asset, f"asset-{at}")) for at, asset in enumerate(spec.assets)]
            self.convert_texts(assets)
            self.check_driver(assets, plan)
            schema = self.check_schema(assets)
        with log.step("requirements", f"for Python {plan.target.python} on {plan.target.platform}"):
            lock = self.lock(plan)
        with log.step("packages", "install from the lock" if lock else "no requirements"):
            self.add_site(lock, plan.target)
        with log.step("layers", "scoring runtime, models, driver and assets"):
            self.add_runtime(plan.target)
            clashes = self.find_clashes(models, assets)
            for model, source, file in models:
                self.add_model(model, source, file, clashes[source.owner])
            self.add_app(assets, schema, clashes)
        with log.step("image", spec.image_id):
            return self.finish(plan, lock)

    # --- fetch ----------------------------------------------------------------------------------------------------

    def fetch(self, item: Model | Asset, name: str) -> tuple[Source, Fetched]:
        """Download a model or asset, and unpack it if required."""
        path = self.tmp / name
        before = self.log.seconds
        try:
            fetched = fetch(item.url, path, download_policy(self.spec, item))
            duration = self.log.seconds - before
            origin = f"{fetched.size} bytes from {redact_url(item.url)} in {duration:.2f} s"
            self.log.detail(f"{item.label}: {origin}, sha256 {fetched.sha256}")
            if item.unpack:
                path = self._unpack(item, path)
        except (FetchError, UnpackError) as error:
            code = "FetchFailed" if isinstance(error, FetchError) else "UnpackFailed"
            raise BuildError(code, f"{item.label}: {error}", item.label) from error
        return Source(item.label, path), fetched

    def convert_texts(self, assets: list[tuple[Asset, Source, Fetched]]) -> None:
        """Convert driver and schema to UTF-8 if they are UTF-16 or UTF-32, which the scoring program doesn't read."""
        for asset, source, _ in assets:
            is_text = not asset.unpack and (asset.id == self.spec.driver or asset.is_schema)
            if is_text and (encoding := text.convert_to_utf8(source.path)):
                self.log.detail(f"{asset.label}: converted from {encoding.upper()} to UTF-8")

    def check_driver(self, assets: list[tuple[Asset, Source, Fetched]], plan: Plan) -> None:
        """Check that the driver is a Python script with the functions init() and run()."""
        driver = find_driver(self.spec)
        check_script(driver, next(source.path for asset, source, _ in assets if asset is driver), plan.target.python)

    def check_schema(self, assets: list[tuple[Asset, Source, Fetched]]) -> str | None:
        """Return the path of the request schema, an asset called schema or schema.json; None if there is none."""
        for asset, source, _ in assets:
            if asset.is_schema:
                name = str(self._asset_paths(asset)[0])
                fields = ", ".join(check_schema(asset, source.path).fields)
                self.log.detail(f"{name} defines {f'the request fields: {fields}' if fields else 'no request fields'}")
                return name
        return None

    def _unpack(self, item: Model | Asset, archive: Path) -> Path:
        folder = archive.with_name(f"{archive.name}.unpacked")
        size = unpack(archive, folder, self.spec.unpack_max_bytes, base_name(item.url))
        archive.unlink()
        self.log.detail(f"{item.label}: unpacked to {size} bytes")
        return folder

    # --- requirements and packages --------------------------------------------------------------------------------

    def lock(self, plan: Plan) -> str:
        """Return the lock file of all required packages; "" if none are required."""
        lines, added = requirements.combine(plan.requirements, plan.runtime.requirements)
        if added:
            self.log.detail(f"{plan.runtime.name} adds {', '.join(added)}, which the requirements don't list")
        if not lines:
            return ""
        key = _key("lock", lines, plan.target.python, plan.target.platform)
        try:
            lock = requirements.restrict_hashes(self.installer.lock(lines, key, plan.target), plan.requirements)
        except install.InstallError as error:
            raise BuildError("RequirementsFailed", str(error), "targetRuntime.properties") from error
        pins = [line.split()[0] for line in lock.splitlines() if "==" in line]
        self.log.detail(f"{len(pins)} packages: {', '.join(pins)}")
        return lock

    def add_site(self, lock: str, target: install.Target) -> None:
        """Add the layer with the required packages."""
        if not lock:
            return
        key = _key("site", lock, target.python, target.platform, _compiler(target))

        def make(tree: Path) -> None:
            self._install(lock, tree / SITE_PATH, target)

        self._add("site", key, make)

    def _install(self, lock: str, folder: Path, target: install.Target) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self.installer.install(lock, folder, target)
            install.remove_machine_details(folder)
            self._compile(folder, target)
        except install.InstallError as error:
            raise BuildError("PackagesFailed", str(error), "targetRuntime.properties") from error

    def _compile(self, folder: Path, target: install.Target) -> None:
        if target.python == runtimes.HOST_PYTHON:
            before = self.log.seconds
            install.compile_tree(folder, "/" + SITE_PATH if folder.name == "site" else "/" + RUNTIME_PATH)
            self.log.detail(f"byte-compiled in {self.log.seconds - before:.2f} s")

    # --- layers ---------------------------------------------------------------------------------------------------

    def add_runtime(self, target: install.Target) -> None:
        """Add the layer with the scoring program and the packages in its own requirements.txt."""
        files = sorted(path for path in SCORING_FOLDER.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        contents = {str(path.relative_to(SCORING_FOLDER)): sha256(path.read_bytes()).hexdigest() for path in files}
        key = _key("runtime", contents, target.python, target.platform, _compiler(target))

        def make(tree: Path) -> None:
            for path in files:
                copy = tree / RUNTIME_PATH / "scoring" / path.relative_to(SCORING_FOLDER)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())
            required = SCORING_FOLDER / "requirements.txt"
            if required.exists():
                self._install(required.read_text(), tree / RUNTIME_PATH, target)
            else:
                self._compile(tree / RUNTIME_PATH, target)

        self._add("runtime", key, make)

    def find_clashes(
        self, models: list[tuple[Model, Source, Fetched]], assets: list[tuple[Asset, Source, Fetched]]
    ) -> dict[str, Clashes]:
        """Return the paths that each model and asset can't have, and log them."""
        clashes = find_clashes(
            [Placement(source, self._model_targets(model)) for model, source, _ in models],
            [Placement(source, self._asset_targets(asset)) for asset, source, _ in assets],
        )
        for model, source, _ in models:
            found = clashes[source.owner]
            for path, other in list(found.items())[:MAX_LOGGED_CLASHES]:
                folder = model_folder(model.name, model.version)
                self.log.detail(f"{model.label}: {path} is only at {folder / path}, because {other} has the same path")
            if (rest := len(found) - MAX_LOGGED_CLASHES) > 0:
                self.log.detail(
                    f"{model.label}: {rest} more files are only in {model_folder(model.name, model.version)}"
                )
        for asset, source, _ in assets:
            for path, other in clashes[source.owner].items():
                only = self._asset_targets(asset)[0]
                self.log.detail(f"{asset.label}: {path} is only at {only}, because {other} has the same path")
        return clashes

    def _model_targets(self, model: Model) -> list[PurePosixPath]:
        folder = model_folder(model.name, model.version)
        if model.unpack:
            return [PurePosixPath("."), folder]
        name = base_name(model.url) or model.name
        return [PurePosixPath(name), folder / name]

    def _asset_targets(self, asset: Asset) -> list[PurePosixPath]:
        return [PurePosixPath(".")] if asset.unpack else self._asset_paths(asset)

    def add_model(self, model: Model, source: Source, file: Fetched, clashes: Clashes) -> None:
        """Add the layer of one model, without the paths in `clashes`."""
        targets = self._model_targets(model)
        skipped = [sorted(map(str, clashes))] if clashes else []
        parts = ["model", PLACEMENT_VERSION, file.sha256, model.unpack, [str(target) for target in targets], *skipped]
        tree = self._tree()
        link_files(source, targets, tree / APP_PATH, self.paths, clashes)
        discard(source)
        self._add(model.label, _key(*parts), lambda _: None, tree)
        self.fetched_models.append(
            {"name": model.name, "version": model.version, "sha256": file.sha256, "size": file.size}
        )

    def add_app(
        self, assets: list[tuple[Asset, Source, Fetched]], schema: str | None, clashes: dict[str, Clashes]
    ) -> None:
        """Add the layer with the driver, the assets, and app.json, which lists them for the scoring program."""
        tree, entries = self._tree(), []
        for asset, source, file in assets:
            skip = clashes[source.owner]
            targets = [target for target in self._asset_targets(asset) if target not in skip]
            link_files(source, targets, tree / APP_PATH, self.paths)
            discard(source)
            entries.append([file.sha256, asset.unpack, [str(target) for target in targets]])
        meta = dump(self._meta(schema))
        (tree / APP_JSON_PATH).parent.mkdir(parents=True)
        (tree / APP_JSON_PATH).write_bytes(meta)
        self._add("app", _key("app", PLACEMENT_VERSION, entries, meta.decode()), lambda _: None, tree)

    def _asset_paths(self, asset: Asset) -> list[PurePosixPath]:
        find = script_paths if asset.id == self.spec.driver else asset_paths
        return find(asset.id, asset.url)

    def _meta(self, schema: str | None) -> dict[str, Any]:
        asset = find_driver(self.spec)
        return {
            "driver": str(self._asset_paths(asset)[0]),
            "schema": schema,
            "models": [
                {"name": model.name, "version": model.version, "path": str(model_folder(model.name, model.version))}
                for model in self.spec.models
            ],
            "runtime_type": self.spec.runtime_type,
        }

    def _tree(self) -> Path:
        return Path(tempfile.mkdtemp(prefix="layer-", dir=self.tmp))

    def _add(self, what: str, key: str, make: Any, tree: Path | None = None) -> None:
        """Add the layer with `key`. If it isn't in the store yet, create it with `make(tree)`."""
        before = self.log.seconds
        layer = self.store.find_layer(key)
        reused = layer is not None
        if layer is None:
            tree = tree or self._tree()
            make(tree)
            layer = self.store.add_layer(key, tree)
        self.layers.append(BuiltLayer(what, layer, reused))
        how = "already in the store" if reused else f"created in {self.log.seconds - before:.2f} s"
        self.log.detail(f"layer {what}: {layer.digest}, {layer.size} bytes, {how}")

    # --- image ----------------------------------------------------------------------------------------------------

    def finish(self, plan: Plan, lock: str) -> dict[str, Any]:
        """Write config and manifest, push the image, and return the result."""
        made = [(built.what, built.layer.diff_id) for built in self.layers]
        config = self.store.add_json(image_config(plan.base, plan.target, plan.runtime.name, made), CONFIG_TYPE)
        descriptors = plan.base.layers + self._descriptors()
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": descriptors}
        descriptor = self.store.add_json(manifest, MANIFEST_TYPE)
        reference = self._publish(manifest, descriptor)
        self.store.set_name(self.spec.image_id, descriptor)
        self.log.detail(f"stored as {descriptor['digest']}")
        return {
            "digest": descriptor["digest"],
            "reference": reference,
            "size": sum(item["size"] for item in (*descriptors, config, descriptor)),
            "layers": [{**asdict(built.layer), "what": built.what, "reused": built.reused} for built in self.layers],
            "lock": lock,
            "models": self.fetched_models,
            "seconds": round(self.log.seconds, 3),
        }

    def _descriptors(self) -> list[dict[str, Any]]:
        return [
            {
                "mediaType": layers.MEDIA_TYPE,
                "digest": built.layer.digest,
                "size": built.layer.size,
                "annotations": {LAYER_ANNOTATION: built.what},
            }
            for built in self.layers
        ]

    def _publish(self, manifest: dict[str, Any], descriptor: dict[str, Any]) -> str:
        """Push the image to the registry in the specification, and return its reference there."""
        location, repository = self.spec.registry.location.rstrip("/"), self.spec.repository
        if location != LOCAL_REGISTRY:
            location, repository = self._push(manifest, descriptor)
        return f"{location}/{repository}@{descriptor['digest']}"

    def _push(self, manifest: dict[str, Any], descriptor: dict[str, Any]) -> tuple[str, str]:
        credentials = self.spec.registry
        registry = Registry(credentials.location, credentials.user, credentials.password, self.spec.private_hosts)
        repository = "/".join(filter(None, [registry.prefix, self.spec.repository]))
        for blob in [*manifest["layers"], manifest["config"]]:
            is_new = registry.push_blob(repository, blob["digest"], self.store.blob_path(blob["digest"]))
            how = "uploaded" if is_new else "already in the registry"
            self.log.detail(f"{registry.host}: {blob['digest']}, {blob['size']} bytes, {how}")
        registry.push_manifest(repository, self.spec.tag, self.store.blob_path(descriptor["digest"]), MANIFEST_TYPE)
        self.log.detail(f"pushed to {registry.host}/{repository}:{self.spec.tag}")
        return registry.host, repository


def _key(*parts: Any) -> str:
    """Return the key of a layer: a digest of everything that its bytes depend on."""
    return sha256(json.dumps([layers.FORMAT, *parts], sort_keys=True).encode()).hexdigest()


def _compiler(target: install.Target) -> str:
    """Return the id of the bytecode format; "" if nothing is compiled for this target."""
    return importlib.util.MAGIC_NUMBER.hex() if target.python == runtimes.HOST_PYTHON else ""


def main() -> int:
    """Build the image specified on stdin and return the exit code."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that temporary files are removed
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # its retries would clutter the build log
    spec = Spec.from_json(json.load(sys.stdin))
    log = Log()
    try:
        spec.result.write_bytes(b" " * RESULT_RESERVED_BYTES)
        store = Store(spec.store)
        with (
            store.packages_in_use(),
            store.in_use(),
            tempfile.TemporaryDirectory(prefix="build-", dir=spec.tmp) as tmp,
        ):
            result = Build(spec, log, Path(tmp)).run()
    except SystemExit:  # SIGTERM
        spec.result.unlink(missing_ok=True)
        raise
    except Exception as error:  # every failure becomes a result
        result = _failed(error, spec, log)
    try:
        _report(result, spec.result)
    except OSError as error:
        result = _failed(error, spec, log)
        with suppress(OSError):  # the error doesn't fit either; mms.operations.builds reports the full disk
            _report(result, spec.result)
    return 1 if "error" in result else 0


def _report(result: dict[str, Any], path: Path) -> None:
    """Write the result into the space reserved for it: the disk may be full by now."""
    with path.open("r+b") as file:
        file.write(json.dumps(result).encode())
        file.truncate()


def _failed(cause: Exception, spec: Spec, log: Log) -> dict[str, Any]:
    error = explain(cause, spec.store)
    log.write(f"The build failed in step {log.current_step}: {error}")
    return {"error": _error(error, log)}


def _error(error: BuildError, log: Log) -> dict[str, Any]:
    details = [{"code": error.code, "message": str(error), "target": error.target}] if error.target else []
    details.append({"code": "Log", "message": "\n".join(log.tail), "target": "log"})
    message = f"Step {log.current_step}: {error}"
    return {"code": error.code, "step": log.current_step, "message": message, "details": details}


if __name__ == "__main__":
    sys.exit(main())
