"""Build errors: one exception for the result, made from all the others."""

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
    """The image can't be built. `target` is the part of the manifest that caused it."""

    def __init__(self, code: str, message: str, target: str = "") -> None:
        super().__init__(message)
        self.code, self.target = code, target


def explain(error: Exception, store: Path) -> BuildError:
    """Return `error` as a BuildError with a message for people. `store` is on the disk that the build writes to."""
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
        case MemoryError():
            reason = "The build needs more memory than a builder process may use (MMS_BUILD_MEMORY)."
            return BuildError("OutOfMemory", f"{reason} Use smaller files, or ask an operator to raise the limit.")
        case OSError():
            reason = f"The builder couldn't read or write a file: {error}."
            return BuildError("StorageFailed", f"{reason} Check the disk and its permissions, then build again.")
    reason = f"The builder failed unexpectedly: {type(error).__name__}: {error}."
    return BuildError("InternalError", f"{reason} Build again; if that fails, report the build log.")


def _is_out_of_space(error: BaseException | None) -> bool:
    """Return True if a full disk caused the error, found by us or reported by uv in its output."""
    while error is not None:
        if disk.is_full(error) or os.strerror(errno.ENOSPC) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _out_of_space_message(folder: Path) -> str:
    """Return the message for a full disk. The build has removed its own files by now."""
    free = shutil.disk_usage(folder).free / 1024**2
    return (
        f"{os.strerror(errno.ENOSPC)}: the disk of {folder} is full; without this build, {free:.0f} MB are free. "
        "Free some space there, then build again."
    )
