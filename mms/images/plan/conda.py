"""Parser for conda's package specifications (MatchSpec).

See https://docs.conda.io/projects/conda/en/stable/user-guide/concepts/pkg-specs.html
"""

import re
from dataclasses import dataclass

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

MAX_CHARS = 300  # of one specification
_BRACKETS = re.compile(r"^([^\[\]]*)\[([^\[\]]*)\]$")
_KEY = re.compile(r"""\s*(\w+)\s*=\s*('[^']*'|"[^"]*"|[^,'"]*)\s*(?:,|$)""")
_NAME = re.compile(r"^([A-Za-z0-9_][A-Za-z0-9_.-]*?)(?=$|[\s=<>!~])(.*)$", re.DOTALL)
_BUILD = re.compile(r"^(.*?[^><!=~,|\s])[\s=]([^\s=,|<>~]+)$")  # after a version: "1.26=py311*", "1.26.* py311_0"
_CONSTRAINT = re.compile(r"^(==|!=|<=|>=|~=|=|<|>|)(.+)$")
_SINGLE = re.compile(r"[^|,()]+")
_MINORS = [*(f"2.{minor}" for minor in range(6, 8)), *(f"3.{minor}" for minor in range(40))]
_PATCHES = range(40)
# Python packages whose name in conda differs from their name in the package index.
_OTHER_NAMES = {
    "dask-core": "dask",
    "matplotlib-base": "matplotlib",
    "msgpack-python": "msgpack",
    "opencv": "opencv-python-headless",
    "py-opencv": "opencv-python-headless",
    "py-xgboost": "xgboost",
    "pytables": "tables",
    "python-graphviz": "graphviz",
    "pytorch": "torch",
    "pytorch-cpu": "torch",
    "pytorch-gpu": "torch",
    "ruamel_yaml": "ruamel.yaml",
    "tensorflow-base": "tensorflow",
    "tensorflow-gpu": "tensorflow",
}
# Libraries, compilers and programs that only conda packages.
_NOT_PYTHON = re.compile(
    r"_.*|lib.*|ld_impl_.*|r-.*|(gcc|gxx|gfortran|clang|binutils|sysroot|kernel-headers)(_.*|impl.*)?|cuda.*|cudnn|nccl|"
    r"blas|bzip2|ca-certificates|compilers|curl|expat|ffmpeg|fontconfig|freetype|git|glib|hdf5|icu|jpeg|krb5|lame|lz4-c|"
    r"make|mpi|mpich|ncurses|nodejs|nomkl|openblas|openjdk|openmpi|openssl|perl|pkg-config|python_abi|qt|qt-main|readline|"
    r"sqlite|tk|unixodbc|wget|xz|yaml|zlib|zstd"
)


class MatchSpecError(ValueError):
    """The text isn't a package specification that this module can read."""


@dataclass(frozen=True)
class MatchSpec:
    """A package specification: the name, and optionally the version and the build. Channels are ignored."""

    name: str
    version: str = ""  # in conda's notation: "3.11.*", ">=3.9,<3.12", "1.8|1.9"; "" allows any version
    build: str = ""

    def allows_python(self, minor: str) -> bool:
        """Return True if a Python release such as "3.11" has a patch release of this version. Raises MatchSpecError."""
        return any(_matches(self.version, Version(f"{minor}.{patch}")) for patch in _PATCHES)

    def python_versions(self) -> list[str]:
        """Return all Python releases that this version allows, such as "3.11". Raises MatchSpecError."""
        return [minor for minor in _MINORS if self.allows_python(minor)]

    @property
    def is_python_package(self) -> bool:
        """False for libraries and programs that aren't Python packages."""
        return not _NOT_PYTHON.fullmatch(self.name)

    @property
    def requirement(self) -> str:
        """The requirement for pip with the same meaning; without the version if pip can't express it."""
        name = _OTHER_NAMES.get(self.name) or canonicalize_name(self.name)
        parts = self.version.split(",") if self.version and not set(self.version) & set("|()") else []
        try:
            return name + ",".join(filter(None, map(_pip_version, parts)))
        except MatchSpecError:
            return name


def parse(text: str) -> MatchSpec:
    """Return the specification in `text`, such as "conda-forge::numpy=1.26=py311*". Raises MatchSpecError."""
    if len(text) > MAX_CHARS:
        raise MatchSpecError("it is too long")
    text, keys = _split_keys(text.strip())
    text = text.rpartition("::")[2].rpartition(":")[2].strip()  # without channel and namespace
    match = _NAME.match(text or keys.get("name", ""))
    if not match:
        raise MatchSpecError("it has no package name")
    name, rest = match[1].lower(), re.sub(r"\s*([,|()])\s*", r"\1", re.sub(r"([<>=!~])\s+", r"\1", match[2].strip()))
    version, build = rest, ""
    if split := _BUILD.match(rest):
        version, build = split[1], split[2]
    version = _without_fuzz(version.strip(), build)
    if re.search(r"\s", version):
        raise MatchSpecError("separate the conditions for the version with commas")
    return MatchSpec(name, keys.get("version", version).replace(" ", ""), keys.get("build", build))


def _split_keys(text: str) -> tuple[str, dict[str, str]]:
    """Split "numpy[version='>=1.2', build=py311*]"."""
    match = _BRACKETS.match(text)
    if not match:
        return text, {}
    keys = {key: value.strip().strip("'\"") for key, value in _KEY.findall(match[2])}
    if match[2].strip() and not keys:
        raise MatchSpecError("its brackets have no key=value")
    return match[1].strip(), keys


def _without_fuzz(version: str, build: str) -> str:
    """Return "1.26" (exactly) for "==1.26" and, with a build, for "=1.26"; "1.26.*" for "=1.26" alone."""
    if version.startswith("==") and _SINGLE.fullmatch(version):
        return version[2:]
    if version.startswith("=") and _SINGLE.fullmatch(version) and not version.startswith("=="):
        exact = version[1:]
        return exact if build or exact.endswith("*") else f"{exact}.*"
    return version


def _matches(specification: str, version: Version) -> bool:
    """Return True if conda's version specification allows `version`: "|" is or, "," is and, and binds more tightly."""
    tokens = re.findall(r"[|,()]|[^|,()]+", specification) or ["*"]
    result = _parse_or(tokens, version)
    if tokens:
        raise MatchSpecError(f"{specification!r} isn't a version")
    return result


def _parse_or(tokens: list[str], version: Version) -> bool:
    result = _parse_and(tokens, version)
    while tokens and tokens[0] == "|":
        tokens.pop(0)
        result = _parse_and(tokens, version) or result
    return result


def _parse_and(tokens: list[str], version: Version) -> bool:
    result = _parse_one(tokens, version)
    while tokens and tokens[0] == ",":
        tokens.pop(0)
        result = _parse_one(tokens, version) and result
    return result


def _parse_one(tokens: list[str], version: Version) -> bool:
    first = tokens.pop(0) if tokens else ""
    if first == "(":
        result = _parse_or(tokens, version)
        if not tokens or tokens.pop(0) != ")":
            raise MatchSpecError("a parenthesis isn't closed")
        return result
    return _compare(first, version)


def _compare(constraint: str, version: Version) -> bool:
    """Return True if `version` meets one constraint, such as ">=3.9", "3.11.*", "=3.11" or "3.11"."""
    match = _CONSTRAINT.match(constraint)
    if not match:
        raise MatchSpecError(f"{constraint!r} isn't a version")
    operator, text = match[1], match[2]
    if text == "*" and operator in {"", "=", "=="}:
        return True
    is_prefix = text.endswith("*") or operator == "="
    wanted = _version(text.removesuffix("*").removesuffix("."))
    starts_with = version.release[: len(wanted.release)] == wanted.release
    match operator:
        case "" | "=" | "==":
            return starts_with if is_prefix else version == wanted
        case "!=":
            return not starts_with if is_prefix else version != wanted
        case "~=":
            return version >= wanted and version.release[: len(wanted.release) - 1] == wanted.release[:-1]
        case "<":
            return version < wanted
        case "<=":
            return version <= wanted
        case ">":
            return version > wanted
    return version >= wanted


def _version(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        raise MatchSpecError(f"{text!r} isn't a version") from None


def _pip_version(constraint: str) -> str:
    """Return one constraint in pip's notation; "" if it allows any version."""
    match = _CONSTRAINT.match(constraint)
    if not match or constraint in {"*", "=*"}:
        return ""
    operator, text = match[1], match[2]
    if operator in {"", "="}:
        suffix = ".*" if text.endswith("*") or operator == "=" else ""
        return f"=={_version(text.removesuffix('*').removesuffix('.'))}{suffix}"
    is_prefix = text.endswith("*") and operator in {"==", "!="}
    return f"{operator}{_version(text.removesuffix('*').removesuffix('.'))}{'.*' if is_prefix else ''}"
