"""The runtimes of the reference, as this server offers them: configuration, no behaviour.

A runtime says which Python it means, which packages it brings along, and which engines can run it. No Django in here.
"""

import platform
import sys
from dataclasses import dataclass

HOST_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
HOST_PLATFORM = f"{sys.platform}/{_ARCHITECTURES.get(platform.machine(), platform.machine())}"  # as OCI spells it

ENGINES = frozenset({"process"})  # those that this server has


class UnknownRuntimeError(LookupError):
    """No runtime has this name. The text names those that exist."""


@dataclass(frozen=True)
class Runtime:
    """What an image of this runtime type is made of, and where it can run."""

    name: str
    python: str = HOST_PYTHON  # minor version, unless a condaEnvFile names another
    # Brought along unless the user's own requirements name them, and never with a version: the user's pin, or that
    # of a package that the user asks for, decides.
    requirements: tuple[str, ...] = ()
    base: str = ""  # base image instead of MMS_BASE_IMAGE
    engines: frozenset[str] = ENGINES
    missing: str = ""  # what it would take where no engine of this server can run it


RUNTIMES = {
    runtime.name: runtime
    for runtime in (
        Runtime("Python"),
        Runtime("ScikitPython", requirements=("numpy", "scikit-learn")),
        Runtime(
            "SparkPython",
            engines=frozenset({"docker", "kubernetes"}),
            missing="Java and Apache Spark, which come with a base image on a container engine; this server runs "
            "services as processes of its own Python",
        ),
        Runtime(
            "CNTKPython",
            python="3.6",
            engines=frozenset({"docker", "kubernetes"}),
            missing="Python 3.6 on a container engine: CNTK ended in 2019 and has no packages for a later Python "
            f"(this server runs {HOST_PYTHON})",
        ),
        Runtime(
            "TLC",
            engines=frozenset({"docker", "kubernetes"}),
            missing="the TLC (ML.NET) runtime, which is .NET and comes with a base image on a container engine",
        ),
    )
}
# Spellings of the reference's text and of the clients of its days, in lower case.
_ALIASES = {"parkpython": "SparkPython", "tlc37": "TLC"} | {name.lower(): name for name in RUNTIMES}


def canonical_name(name: str) -> str:
    """The one spelling of the runtime type `name`. Raises UnknownRuntimeError."""
    try:
        return _ALIASES[name.lower()]
    except KeyError:
        raise UnknownRuntimeError(f"There is no runtime {name!r}; there are: {', '.join(RUNTIMES)}.") from None


def unavailable_reason(name: str, engines: frozenset[str] = ENGINES) -> str:
    """What is missing to run this runtime on `engines`, as a sentence; "" if nothing. Raises UnknownRuntimeError."""
    runtime = RUNTIMES[canonical_name(name)]
    if runtime.engines & engines:
        return ""
    return f"{runtime.name} cannot run on this server: it needs {runtime.missing}."
