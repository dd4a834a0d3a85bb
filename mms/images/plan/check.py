"""The first step of a build: whether this manifest can become an image, and what it takes."""

import ast
from dataclasses import dataclass, replace
from pathlib import Path

from mms.images import runtimes
from mms.images.explain import BuildError
from mms.images.log import Log
from mms.images.packages import install
from mms.images.plan import requirements
from mms.images.plan.spec import Asset, Spec
from mms.images.registry.base_image import BaseImage, pull_base_image
from mms.images.sources.fetch import fetch, redact_url
from mms.images.store.layout import Store

MAX_MODELS = 100  # a layer each, and container engines stop at 127 layers


@dataclass(frozen=True)
class Plan:
    """What the check found out."""

    runtime: runtimes.Runtime
    target: install.Target
    requirements: list[requirements.ParsedRequirement]
    base: BaseImage


def check(spec: Spec, store: Store, log: Log, tmp: Path) -> Plan:
    """What to build. Refuses what cannot become an image that runs, before anything big is fetched.

    Raises BuildError and what `explain` knows.
    """
    runtime = runtimes.RUNTIMES[runtimes.canonical_name(spec.runtime_type)]
    if reason := runtimes.unavailable_reason(runtime.name):
        raise BuildError("RuntimeUnavailable", reason, "targetRuntime")
    if len(spec.models) > MAX_MODELS:
        raise BuildError("TooManyModels", f"An image takes at most {MAX_MODELS} models.", "modelIds")
    find_driver(spec)
    wanted = requirements.parse(_text(spec.pip_requirements, "pipRequirements", spec, log, tmp))
    environment = _text(spec.conda_env_file, "condaEnvFile", spec, log, tmp)
    conda = requirements.parse_conda(environment, runtimes.HOST_PYTHON)
    target = install.Target(conda.python or runtime.python, runtimes.HOST_PLATFORM, spec.python)
    start = _base(runtime.base or spec.base, target.platform, spec, store, log)
    python = start.python or runtimes.HOST_PYTHON
    if target.python != python:
        reason = f"The image needs Python {target.python}, but it would run with Python {python}."
        raise BuildError("PythonUnavailable", reason, "targetRuntime")
    return Plan(runtime, target, wanted + conda.requirements, start)


def _base(reference: str, platform: str, spec: Spec, store: Store, log: Log) -> BaseImage:
    if not reference:
        log.detail("no base image is configured: this image runs as a process of this server only")
        return BaseImage()
    found = pull_base_image(reference, platform, store, spec.registry)
    log.detail(f"base image {reference}: {len(found.layers)} layers")
    return found


def find_driver(spec: Spec) -> Asset:
    """The asset that holds init() and run()."""
    if not spec.driver:
        raise BuildError(
            "NoDriver", "The manifest names no driverProgram: there would be nothing to run.", "driverProgram"
        )
    asset = next((asset for asset in spec.assets if asset.id == spec.driver), None)
    if asset is None:
        raise BuildError("NoDriver", f"driverProgram {spec.driver!r} is no id of an asset.", "driverProgram")
    if asset.unpack:
        raise BuildError(
            "NoDriver", f"The driver {asset.id!r} is an archive to unpack; it must be a file.", "driverProgram"
        )
    return asset


def check_syntax(asset: Asset, path: Path) -> None:
    """Refuse a driver that Python cannot even read: found here, it costs no deployment. It is parsed, never run.

    Raises BuildError naming the line.
    """
    try:
        ast.parse(path.read_bytes(), filename=asset.id)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        where = f" in line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        reason = error.msg if isinstance(error, SyntaxError) else str(error) or type(error).__name__
        raise BuildError(
            "DriverUnreadable", f"The driver {asset.id!r} is not valid Python{where}: {reason}", "driverProgram"
        ) from None


def _text(value: str, name: str, spec: Spec, log: Log, tmp: Path) -> str:
    """`value`, or what its URL gives."""
    if not value.strip().startswith(("http://", "https://")) or "\n" in value.strip():
        return value
    url = value.strip()
    path = tmp / name
    fetch(url, path, replace(spec.policy, max_bytes=requirements.MAX_CHARS))
    log.detail(f"{name} from {redact_url(url)}")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise BuildError(
            "BadRequirements", f"{redact_url(url)} is not a text.", f"targetRuntime.properties.{name}"
        ) from None
