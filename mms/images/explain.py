"""How a build fails: one kind of exception for the result, made of all the others."""

import errno
import os
import shutil
from pathlib import Path

from mms.images.plan.placement import PathConflictError
from mms.images.plan.requirements import RequirementsError
from mms.images.registry.client import RegistryError
from mms.images.runtimes import UnknownRuntimeError
from mms.images.sources.fetch import FetchError
from mms.system import disk


class BuildError(Exception):
    """The image cannot be built. `target` names the part of the manifest that is to blame."""

    def __init__(self, code: str, message: str, target: str = "") -> None:
        super().__init__(message)
        self.code, self.target = code, target


def explain(error: Exception, store: Path) -> BuildError:
    """Any way in which a build fails, in words for people. `store` lies on the disk that the build works on."""
    if _is_out_of_space(error):
        return BuildError("NoSpace", _out_of_space_message(store), getattr(error, "target", ""))
    match error:
        case BuildError():
            return error
        case UnknownRuntimeError():
            return BuildError("UnknownRuntime", str(error.args[0]), "targetRuntime")
        case RequirementsError():
            return BuildError("BadRequirements", str(error), "targetRuntime.properties")
        case FetchError():
            return BuildError("FetchFailed", str(error), "targetRuntime.properties")
        case PathConflictError():
            return BuildError("NameClash", str(error), "assets")
        case RegistryError():
            return BuildError("RegistryFailed", str(error), "registryInfo")
        case OSError():
            return BuildError("StorageFailed", f"The build could not read or write a file: {error}")
    return BuildError("InternalError", f"The builder failed: {type(error).__name__}: {error}")


def _is_out_of_space(error: BaseException | None) -> bool:
    """Whether a full disk is behind it, whoever met it: we, or uv, which says so in its own words."""
    while error is not None:
        if disk.is_full(error) or os.strerror(errno.ENOSPC) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _out_of_space_message(place: Path) -> str:
    """What to do about it. By now the build has taken away what it made."""
    free = shutil.disk_usage(place).free / 1024**2
    return (
        f"{os.strerror(errno.ENOSPC)}: the disk of {place} is full (without this build {free:.0f} MB are free). "
        "Make room there, then try again."
    )
