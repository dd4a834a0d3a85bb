"""How a build fails: one kind of exception for the result, made of all the others."""

from mms.fetch import FetchError
from mms.images.placement import Clash
from mms.images.registry import RegistryError
from mms.images.requirements import Refused
from mms.runtimes import UnknownRuntime


class BuildError(Exception):
    """The image cannot be built. `target` names the part of the manifest that is to blame."""

    def __init__(self, code: str, message: str, target: str = "") -> None:
        super().__init__(message)
        self.code, self.target = code, target


def explain(error: Exception) -> BuildError:
    """Any way in which a build fails, in words for people."""
    match error:
        case BuildError():
            return error
        case UnknownRuntime():
            return BuildError("UnknownRuntime", str(error.args[0]), "targetRuntime")
        case Refused():
            return BuildError("BadRequirements", str(error), "targetRuntime.properties")
        case FetchError():
            return BuildError("FetchFailed", str(error), "targetRuntime.properties")
        case Clash():
            return BuildError("NameClash", str(error), "assets")
        case RegistryError():
            return BuildError("RegistryFailed", str(error), "registryInfo")
        case OSError():
            return BuildError("StorageFailed", f"The build could not read or write a file: {error}")
    return BuildError("InternalError", f"The builder failed: {type(error).__name__}: {error}")
