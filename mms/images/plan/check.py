"""The first step of a build: check the manifest and plan the image."""

from dataclasses import dataclass, replace
from pathlib import Path

from mms.images import runtimes
from mms.images.explain import BuildError
from mms.images.log import Log
from mms.images.packages import install
from mms.images.plan import driver, requirements
from mms.images.plan.spec import MAX_SCRIPT_BYTES as MAX_SCRIPT_BYTES  # re-exported
from mms.images.plan.spec import Asset, Model, Spec
from mms.images.registry.base_image import BaseImage, pull_base_image
from mms.images.sources.fetch import Policy, base_name, fetch, redact_url
from mms.images.store.layout import Store
from mms.scoring.schema import Schema, SchemaError
from mms.system import text

MAX_MODELS = 100  # one layer each, and container engines support 127 layers
SCRIPT_ADVICE = "A driver or schema can be up to 1 MB. Move its data to a model or to another asset."


@dataclass(frozen=True)
class Plan:
    """The result of the check."""

    runtime: runtimes.Runtime
    target: install.Target
    requirements: list[requirements.ParsedRequirement]
    base: BaseImage


def check(spec: Spec, store: Store, log: Log, tmp: Path) -> Plan:
    """Return the plan for `spec`. Reject manifests that can't become a working image before downloading large files.

    Raises BuildError and the exceptions that `explain` handles.
    """
    runtime = runtimes.RUNTIMES[runtimes.canonical_name(spec.runtime_type)]
    if reason := runtimes.unavailable_reason(runtime.name):
        raise BuildError("RuntimeUnavailable", reason, "targetRuntime")
    if len(spec.models) > MAX_MODELS:
        raise BuildError(
            "TooManyModels",
            f"The manifest has {len(spec.models)} models, more than the {MAX_MODELS} of an image. Remove some.",
            "modelIds",
        )
    find_driver(spec)
    pip_text = _text(spec.pip_requirements, "pipRequirements", spec, log, tmp)
    conda_text = _text(spec.conda_env_file, "condaEnvFile", spec, log, tmp)
    listed = _parse_requirements(pip_text, conda_text)
    start = _base(runtime.base or spec.base, runtimes.HOST_PLATFORM, spec, store, log)
    python = start.python or runtimes.HOST_PYTHON
    conda = requirements.parse_conda(conda_text, python)
    target = install.Target(conda.python or runtime.python, runtimes.HOST_PLATFORM, spec.python)
    if target.python != python:
        reason = f"The image needs Python {target.python}, but it would run with Python {python}."
        solution = "Change the Python version in condaEnvFile or select another runtime type."
        raise BuildError("PythonUnavailable", f"{reason} {solution}", "targetRuntime")
    return Plan(runtime, target, listed, start)


def _parse_requirements(pip_text: str, conda_text: str) -> list[requirements.ParsedRequirement]:
    """Return the requirements of both files. Raises RequirementsError with the problems of both."""
    found: list[requirements.ParsedRequirement] = []
    problems = []
    try:
        found += requirements.parse(pip_text)
    except requirements.RequirementsError as error:
        problems.append(str(error))
    try:
        found += requirements.parse_conda(conda_text, "").requirements
    except requirements.RequirementsError as error:
        problems.append(str(error))
    requirements.raise_all(problems)
    return found


def _base(reference: str, platform: str, spec: Spec, store: Store, log: Log) -> BaseImage:
    if not reference:
        log.detail("no base image is configured (MMS_BASE_IMAGE): the image runs only as a process on this server")
        return BaseImage()
    found = pull_base_image(reference, platform, store, spec.registry, spec.private_hosts)
    log.detail(f"base image {reference}: {len(found.layers)} layers")
    return found


def find_driver(spec: Spec) -> Asset:
    """Return the asset that defines init() and run(). Raises BuildError, also if its name isn't that of a script."""
    if not spec.driver:
        message = "The manifest has no driverProgram, so the image would have nothing to run. Select a driver script."
        raise BuildError("NoDriver", message, "driverProgram")
    asset = next((asset for asset in spec.assets if asset.id == spec.driver), None)
    if asset is None:
        message = (
            f"driverProgram {spec.driver!r} isn't the id of an asset. Add that asset or select another driver script."
        )
        raise BuildError("NoDriver", message, "driverProgram")
    if asset.unpack:
        message = f"The driver {asset.id!r} is marked as an archive to unpack, but must be a file. Turn unpacking off."
        raise BuildError("NoDriver", message, "driverProgram")
    try:
        driver.script_paths(asset.id, asset.url)
    except driver.DriverError as error:
        raise _driver_error("DriverUnreadable", asset, error) from None
    return asset


def check_script(asset: Asset, path: Path, python: str) -> None:
    """Raise BuildError unless the driver is Python and may define init() and run(). Parse it, but never run it."""
    try:
        driver.check_source(path.read_bytes(), _file_name(asset), python == runtimes.HOST_PYTHON)
    except driver.DriverError as error:
        raise _driver_error("DriverUnreadable", asset, error) from None


def check_schema(asset: Asset, path: Path) -> Schema:
    """Return the schema in the asset. Raises BuildError if the scoring program couldn't use it."""
    try:
        return Schema.parse(path.read_bytes(), _file_name(asset))
    except SchemaError as error:
        raise BuildError("SchemaInvalid", f"{error} Correct it, then build again.", asset.label) from None


def _driver_error(code: str, asset: Asset, reason: Exception) -> BuildError:
    return BuildError(code, f"The driver {asset.id!r} {reason}, then build again.", "driverProgram")


def _file_name(asset: Asset) -> str:
    return base_name(asset.url) or asset.id


def download_policy(spec: Spec, item: Asset | Model) -> Policy:
    """Return the limits for the download of `item`. Drivers and schemas have a lower limit, because they are parsed."""
    if isinstance(item, Asset) and (item.id == spec.driver or item.is_schema):
        limit = min(spec.policy.max_bytes, MAX_SCRIPT_BYTES)
        return replace(spec.policy, max_bytes=limit, size_advice=SCRIPT_ADVICE)
    return spec.policy


def _text(value: str, name: str, spec: Spec, log: Log, tmp: Path) -> str:
    """Return `value`, or the content of the URL that it contains."""
    url = requirements.url_in(value)
    if not url:
        return text.without_mark(value)
    path = tmp / name
    fetch(url, path, replace(spec.policy, max_bytes=requirements.MAX_CHARS))
    log.detail(f"{name} from {redact_url(url)}")
    try:
        return text.decode(path.read_bytes())
    except text.UndecodableTextError as error:
        reason = f"{redact_url(url)} {error}, then build again."
        raise BuildError("BadRequirements", reason, f"targetRuntime.properties.{name}") from None
