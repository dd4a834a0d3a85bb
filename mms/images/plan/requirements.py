"""What a manifest requires, read so strictly that it can say nothing but names and versions of packages.

A requirement file of pip is a small language: it can set the index, name files and URLs, include other files and
read the environment. None of that gets through: every line is parsed, and what uv reads later is written anew from
the parts.
"""

import re
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

MAX_CHARS = 256 * 1024
MAX_LINE_CHARS = 1000  # characters of a requirement without its hashes
_BLANKS = re.compile(r"\s+")  # of any kind: what pip, uv and Unicode take for the end of a line differs
_HASH = re.compile(r" --hash[= ](sha(?:256|384|512):[0-9a-fA-F]{1,128})(?= |$)")
# All that a name, extras, versions and markers are made of. Not among it: what paths, URLs, options and variables need.
_HARMLESS = re.compile(r"""[A-Za-z0-9 ._+*!=<>~(),;"'\[\]-]+""")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")  # as canonicalize_name writes it
_COMMENT = re.compile(r"(^|\s)#.*$")
_CONDA_EXACT = re.compile(r"={1,2}\s*(\d+\.\d+)(?:\.[\d*]+)*(?:=.*)?")


class RequirementsError(Exception):
    """These requirements are not installed. The text names the line and says why, for people."""


@dataclass(frozen=True)
class ParsedRequirement:
    """One requirement: `name` is canonical, `line` is what uv gets to read."""

    name: str
    line: str
    hashes: frozenset[str] = frozenset()  # of the only files that may be taken; none: any


@dataclass(frozen=True)
class CondaEnvironment:
    python: str  # minor version, "" if the file names none
    requirements: list[ParsedRequirement]


def parse(text: str) -> list[ParsedRequirement]:
    """The requirements in the text of a pip requirement file, in order. Raises RequirementsError."""
    _limit(text)
    lines = text.replace("\r\n", "\n").replace("\\\n", " ").split("\n")
    found = [_BLANKS.sub(" ", _COMMENT.sub("", line)).strip() for line in lines]
    return [_parse_line(line, number) for number, line in enumerate(found, 1) if line]


def _parse_line(line: str, number: int) -> ParsedRequirement:
    hashes = _HASH.findall(line)
    line = _HASH.sub("", line).strip()
    if line.startswith("-"):
        raise RequirementsError(
            f"Requirement {number} is an option ({_printable_start(line)}). "
            "List only package names and versions, then build again."
        )
    if len(line) > MAX_LINE_CHARS:
        raise RequirementsError(
            f"Requirement {number} is longer than {MAX_LINE_CHARS} characters: {_printable_start(line)}…"
        )
    try:
        requirement = Requirement(line)
    except (InvalidRequirement, RecursionError):
        raise RequirementsError(
            f"Requirement {number} is not the name and version of a package: {_printable_start(line)}"
        ) from None
    if requirement.url:
        raise RequirementsError(
            f"Requirement {number} names a URL or a file ({requirement.name}). Only packages of the index are taken."
        )
    # The canonical name holds no dot or slash, so that uv can never take it for a path.
    name = requirement.name = canonicalize_name(requirement.name)
    if not _NAME.fullmatch(name):  # packaging lets "numpy_" pass, which no index knows and uv stumbles over
        raise RequirementsError(
            f"Requirement {number} is not the name of a package: {_printable_start(requirement.name)}"
        )
    line = str(requirement)
    if not _HARMLESS.fullmatch(line):
        raise RequirementsError(f"Requirement {number} ({name}) holds a character that no version or marker needs.")
    line = " ".join([line, *(f"--hash={item}" for item in hashes)])
    return ParsedRequirement(name, line, frozenset(item.lower() for item in hashes))


def _printable_start(line: str) -> str:
    """The beginning of a line, as an error can hold it: no database stores every character."""
    return "".join(letter if letter.isprintable() else "?" for letter in line[:80])


def parse_conda(text: str, host_python: str) -> CondaEnvironment:
    """The pip part and the Python version of a conda environment file. Raises RequirementsError.

    Packages of conda itself are refused by name: installing others instead would only fail later, in the service.
    """
    dependencies = _conda_dependencies(text) if text.strip() else []
    python, wanted, foreign = "", [], []
    for item in dependencies:
        if isinstance(item, dict) and set(item) == {"pip"}:
            wanted += parse("\n".join(_texts(item["pip"])))
        elif isinstance(item, str) and (name := re.split(r"[\s=<>!~\[]", item.strip(), maxsplit=1)[0]) == "python":
            python = _conda_python(item.strip().removeprefix("python").strip(), host_python)
        elif not isinstance(item, str) or name != "pip":
            foreign.append(_printable_start(str(item)))
    if foreign:
        raise RequirementsError(
            f"condaEnvFile asks for packages of conda ({', '.join(foreign)}), which cannot be installed here. "
            "Move them into its 'pip:' part."
        )
    return CondaEnvironment(python, wanted)


def _conda_dependencies(text: str) -> list[object]:
    from mms.system import safe_yaml  # only here: most builds have no conda file

    _limit(text)
    try:
        document = safe_yaml.load(text)
    except safe_yaml.UnsupportedYamlError as reason:
        raise RequirementsError(f"condaEnvFile {reason}.") from None
    dependencies = document.get("dependencies", []) if isinstance(document, dict) else None
    if not isinstance(dependencies, list):
        raise RequirementsError(
            "condaEnvFile must be a conda environment: a YAML mapping with a list of 'dependencies'."
        )
    return dependencies


def _texts(items: object) -> list[str]:
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise RequirementsError("The 'pip:' part of condaEnvFile must be a list of requirements.")
    return items


def _conda_python(specifier: str, host_python: str) -> str:
    """The minor version that "=3.11", "==3.11.5", ">=3.9,<3.13" or "" means; the host's where a range allows it."""
    if not specifier:
        return ""
    if exact := _CONDA_EXACT.fullmatch(specifier):
        return exact[1]
    try:
        if any(f"{host_python}.{patch}" in SpecifierSet(specifier) for patch in range(40)):
            return host_python
    except InvalidSpecifier:
        pass
    raise RequirementsError(f"condaEnvFile asks for python{specifier}; this server has Python {host_python}.")


def _limit(text: str) -> None:
    if len(text) > MAX_CHARS:
        raise RequirementsError(f"The requirements are longer than {MAX_CHARS} characters.")


def combine(wanted: list[ParsedRequirement], implied: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The lines for uv, sorted, and the packages that the runtime adds because nobody named them."""
    added = sorted(set(implied) - {item.name for item in wanted})
    return sorted({item.line for item in wanted} | set(added)), added


def restrict_hashes(lock: str, wanted: list[ParsedRequirement]) -> str:
    """Return `lock` with only the hashes that the requirements name. Raises RequirementsError if none is left.

    uv writes the hashes of all files of the index into a lock, whatever hashes it was given.
    """
    named = {item.name: item.hashes for item in wanted if item.hashes}
    entries = re.split(r"\n(?=\S)", lock.strip()) if named else []
    return "".join(_restrict_entry(entry, named) for entry in entries) or lock


def _restrict_entry(entry: str, named: dict[str, frozenset[str]]) -> str:
    pin, *hashes = (part.strip() for part in entry.split("\\\n"))
    if allowed := named.get(canonicalize_name(Requirement(pin).name)):
        hashes = [item for item in hashes if item.removeprefix("--hash=").lower() in allowed]
        if not hashes:
            raise RequirementsError(f"No file of {pin} has a hash that the requirements name.")
    return " \\\n    ".join([pin, *hashes]) + "\n"
