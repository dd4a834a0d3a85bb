"""A strict parser for requirements and conda files: package names and versions only.

pip's requirement files can also set the index, refer to files and URLs, include other files and read the environment.
All of that is rejected: every line is parsed, and uv reads only lines rebuilt from the parsed parts.
"""

import re
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

MAX_CHARS = 256 * 1024
MAX_LINE_CHARS = 1000  # of a requirement without its hashes
_BLANKS = re.compile(r"\s+")  # of any kind: pip, uv and Unicode disagree about line ends
_HASH = re.compile(r" --hash[= ](sha(?:256|384|512):[0-9a-fA-F]{1,128})(?= |$)")
# The characters of names, extras, versions and markers; without those that paths, URLs and variables need.
_HARMLESS = re.compile(r"""[A-Za-z0-9 ._+*!=<>~(),;"'\[\]-]+""")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")  # as returned by canonicalize_name
_COMMENT = re.compile(r"(^|\s)#.*$")
_CONDA_EXACT = re.compile(r"={1,2}\s*(\d+\.\d+)(?:\.[\d*]+)*(?:=.*)?")


class RequirementsError(Exception):
    """The requirements are rejected. The message is for people and names the line and the reason."""


@dataclass(frozen=True)
class ParsedRequirement:
    """One requirement: its canonical name, and the line that uv reads."""

    name: str
    line: str
    hashes: frozenset[str] = frozenset()  # of the allowed files; empty: all files


@dataclass(frozen=True)
class CondaEnvironment:
    """The supported parts of a conda environment file."""

    python: str  # minor version; "" if the file doesn't specify one
    requirements: list[ParsedRequirement]


def parse(text: str) -> list[ParsedRequirement]:
    """Return the requirements in a pip requirements file, in order. Raises RequirementsError."""
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
            f"Requirement {number} is longer than {MAX_LINE_CHARS} characters: {_printable_start(line)}... Shorten it."
        )
    try:
        requirement = Requirement(line)
    except (InvalidRequirement, RecursionError):
        raise RequirementsError(
            f"Requirement {number} is not a package name and version: {_printable_start(line)}. Correct it."
        ) from None
    if requirement.url:
        raise RequirementsError(
            f"Requirement {number} refers to a URL or a file ({requirement.name}). Use a package of the index instead."
        )
    # The canonical name has no dot or slash, so uv can't mistake it for a path.
    name = requirement.name = canonicalize_name(requirement.name)
    if not _NAME.fullmatch(name):  # packaging accepts "numpy_", which no index has and uv rejects
        raise RequirementsError(
            f"Requirement {number} is not a package name: {_printable_start(requirement.name)}. Correct it."
        )
    line = str(requirement)
    if not _HARMLESS.fullmatch(line):
        raise RequirementsError(
            f"Requirement {number} ({name}) has a character that is not allowed in versions and markers. Remove it."
        )
    line = " ".join([line, *(f"--hash={item}" for item in hashes)])
    return ParsedRequirement(name, line, frozenset(item.lower() for item in hashes))


def _printable_start(line: str) -> str:
    """Return the start of a line for an error message, without characters that databases can't store."""
    return "".join(letter if letter.isprintable() else "?" for letter in line[:80])


def parse_conda(text: str, host_python: str) -> CondaEnvironment:
    """Return the pip section and the Python version of a conda environment file. Raises RequirementsError.

    Conda packages are rejected: replacing them with pip packages would only fail later, in the service.
    """
    dependencies = _conda_dependencies(text) if text.strip() else []
    python, requirements, foreign = "", [], []
    for item in dependencies:
        if isinstance(item, dict) and set(item) == {"pip"}:
            requirements += parse("\n".join(_texts(item["pip"])))
        elif isinstance(item, str) and (name := re.split(r"[\s=<>!~\[]", item.strip(), maxsplit=1)[0]) == "python":
            python = _conda_python(item.strip().removeprefix("python").strip(), host_python)
        elif not isinstance(item, str) or name != "pip":
            foreign.append(_printable_start(str(item)))
    if foreign:
        raise RequirementsError(
            f"condaEnvFile lists conda packages ({', '.join(foreign)}), which can't be installed on this server. "
            "Move them to its 'pip:' section."
        )
    return CondaEnvironment(python, requirements)


def _conda_dependencies(text: str) -> list[object]:
    from mms.system import safe_yaml  # imported here because most builds have no conda file

    _limit(text)
    try:
        document = safe_yaml.load(text)
    except safe_yaml.UnsupportedYamlError as reason:
        raise RequirementsError(f"condaEnvFile {reason}.") from None
    dependencies = document.get("dependencies", []) if isinstance(document, dict) else None
    if not isinstance(dependencies, list):
        raise RequirementsError(
            "condaEnvFile isn't a conda environment. Write a YAML mapping with a list of 'dependencies'."
        )
    return dependencies


def _texts(items: object) -> list[str]:
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise RequirementsError(
            "The 'pip:' section of condaEnvFile isn't a list of requirements. Write one requirement per list item."
        )
    return items


def _conda_python(specifier: str, host_python: str) -> str:
    """Return the minor version for "=3.11", "==3.11.5" or ">=3.9,<3.13": the host's if a range includes it."""
    if not specifier:
        return ""
    if exact := _CONDA_EXACT.fullmatch(specifier):
        return exact[1]
    try:
        if any(f"{host_python}.{patch}" in SpecifierSet(specifier) for patch in range(40)):
            return host_python
    except InvalidSpecifier:
        pass
    raise RequirementsError(
        f"condaEnvFile requires python{specifier}, but this server has Python {host_python}. Change the version there."
    )


def _limit(text: str) -> None:
    if len(text) > MAX_CHARS:
        raise RequirementsError(f"The requirements are longer than {MAX_CHARS} characters. Shorten them.")


def combine(requirements: list[ParsedRequirement], implied: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Return the sorted lines for uv, and the packages of the runtime that the requirements don't list."""
    added = sorted(set(implied) - {item.name for item in requirements})
    return sorted({item.line for item in requirements} | set(added)), added


def restrict_hashes(lock: str, requirements: list[ParsedRequirement]) -> str:
    """Return `lock` with only the hashes that the requirements name. Raises RequirementsError if none is left.

    uv writes the hashes of all files in the index to a lock, even if the requirements name specific hashes.
    """
    hashes_by_name = {item.name: item.hashes for item in requirements if item.hashes}
    entries = re.split(r"\n(?=\S)", lock.strip()) if hashes_by_name else []
    return "".join(_restrict_entry(entry, hashes_by_name) for entry in entries) or lock


def _restrict_entry(entry: str, hashes_by_name: dict[str, frozenset[str]]) -> str:
    pin, *hashes = (part.strip() for part in entry.split("\\\n"))
    if allowed := hashes_by_name.get(canonicalize_name(Requirement(pin).name)):
        hashes = [item for item in hashes if item.removeprefix("--hash=").lower() in allowed]
        if not hashes:
            raise RequirementsError(f"No file of {pin} has one of the hashes in the requirements. Correct the hashes.")
    return " \\\n    ".join([pin, *hashes]) + "\n"
