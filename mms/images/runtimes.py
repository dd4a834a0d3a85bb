"""The runtime types of the MMS API, as configured on this server; no Django.

A runtime defines its Python version, the packages that it adds, and the engines that can run it.
"""

import platform
import sys
from dataclasses import dataclass

HOST_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
HOST_PLATFORM = f"{sys.platform}/{_ARCHITECTURES.get(platform.machine(), platform.machine())}"  # in OCI notation

ENGINES = frozenset({"process"})  # of this server


class UnknownRuntimeError(LookupError):
    """No runtime has this name. The message lists the existing ones."""


@dataclass(frozen=True)
class Runtime:
    """The contents of an image of this runtime type, and the engines that can run it."""

    name: str
    python: str = HOST_PYTHON  # minor version, unless condaEnvFile specifies another
    # Added unless the user's requirements list them. Without versions, so that the user's pins, and those of the
    # packages that the user requires, take precedence.
    requirements: tuple[str, ...] = ()
    base: str = ""  # base image instead of MMS_BASE_IMAGE
    engines: frozenset[str] = ENGINES
    missing: str = ""  # prerequisites, if no engine of this server can run it


RUNTIMES = {
    runtime.name: runtime
    for runtime in (
        Runtime("Python"),
        Runtime("ScikitPython", requirements=("numpy", "scikit-learn")),
        Runtime(
            "SparkPython",
            engines=frozenset({"docker", "kubernetes"}),
            missing="Java and Apache Spark from a base image on a container engine, but this server runs services as "
            "processes of its own Python",
        ),
        Runtime(
            "CNTKPython",
            python="3.6",
            engines=frozenset({"docker", "kubernetes"}),
            missing="Python 3.6 on a container engine, because CNTK ended in 2019 without packages for a later Python, "
            f"but this server runs Python {HOST_PYTHON}",
        ),
        Runtime(
            "TLC",
            engines=frozenset({"docker", "kubernetes"}),
            missing="the TLC (ML.NET) runtime for .NET from a base image on a container engine; this server has none",
        ),
    )
}
# Lower-case spellings in the API reference and in clients of its time.
_ALIASES = {"parkpython": "SparkPython", "tlc37": "TLC"} | {name.lower(): name for name in RUNTIMES}


def canonical_name(name: str) -> str:
    """Return the canonical spelling of the runtime type `name`. Raises UnknownRuntimeError."""
    try:
        return _ALIASES[name.lower()]
    except KeyError:
        raise UnknownRuntimeError(
            f"The runtime type {name!r} doesn't exist. Use one of: {', '.join(RUNTIMES)}."
        ) from None


def unavailable_reason(name: str, engines: frozenset[str] = ENGINES) -> str:
    """Return why `engines` can't run this runtime, as a message; "" if they can. Raises UnknownRuntimeError."""
    runtime = RUNTIMES[canonical_name(name)]
    if runtime.engines & engines:
        return ""
    return f"{runtime.name} can't run on this server: it needs {runtime.missing}. Select another runtime type."
