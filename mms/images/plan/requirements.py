"""A strict parser for requirements and conda files: package names and versions only.

pip's requirement files can also set the index, refer to files and URLs, include other files and read the environment.
All of that is rejected: every line is parsed, and uv reads only lines rebuilt from the parsed parts.
"""

import contextlib
import re
from dataclasses import dataclass, replace

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from mms.images.plan import conda
from mms.system.text import without_mark

MAX_CHARS = 256 * 1024
MAX_MESSAGES = 20  # about lines, in one error
MAX_LINE_CHARS = 1000  # of a requirement without its hashes
_BLANKS = re.compile(r"\s+")  # of any kind: pip, uv and Unicode disagree about line ends
_HASH = re.compile(r" --hash[= ](sha(?:256|384|512):[0-9a-fA-F]{1,128})(?= |$)")
# The characters of names, extras, versions and markers; without those that paths, URLs and variables need.
_HARMLESS = re.compile(r"""[A-Za-z0-9 ._+*!=<>~(),;"'\[\]-]+""")
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")  # as returned by canonicalize_name
_COMMENT = re.compile(r"(^|\s)#.*$")


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


def url_in(text: str) -> str:
    """Return the URL of a file with the requirements, if that is all that `text` contains, else ""."""
    url = without_mark(text).strip()
    return url if url.lower().startswith(("http://", "https://")) and len(url.split()) == 1 else ""


def parse(text: str) -> list[ParsedRequirement]:
    """Return the requirements in a pip requirements file, in order. Raises RequirementsError with all invalid lines."""
    text = without_mark(text)
    _limit(text)
    lines = text.replace("\r\n", "\n").replace("\\\n", " ").split("\n")
    found = [_BLANKS.sub(" ", _COMMENT.sub("", line)).strip() for line in lines]
    requirements, problems = [], []
    for number, line in enumerate(found, 1):
        try:
            requirements += [_parse_line(line, number)] if line else []
        except RequirementsError as error:
            problems.append(str(error))
    raise_all(problems)
    return requirements


def raise_all(problems: list[str]) -> None:
    """Raise RequirementsError with all messages, if there are any."""
    if (rest := len(problems) - MAX_MESSAGES) > 0:
        problems = [*problems[:MAX_MESSAGES], f"{rest} more lines are invalid."]
    if problems:
        raise RequirementsError("\n".join(problems))


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


def parse_conda(text: str, available_python: str) -> CondaEnvironment:
    """Return the pip section and the Python version of a conda environment file. Raises RequirementsError.

    The Python version is `available_python` if the file allows it; "" leaves it unchecked. Conda packages are
    rejected: a package of the same name in the package index may be another one.
    """
    dependencies = _conda_dependencies(text) if text.strip() else []
    found = CondaEnvironment("", [])
    foreign: list[tuple[str, conda.MatchSpec]] = []
    problems = []
    if sum(map(_is_python, dependencies)) > 1:
        raise RequirementsError("condaEnvFile lists python twice. Combine the versions: python>=3.9,<3.13.")
    for item in dependencies:
        try:
            found = _add_dependency(found, item, available_python, foreign)
        except RequirementsError as error:
            problems += str(error).splitlines()
    problems += [_foreign_message(foreign)] if foreign else []
    raise_all(problems)
    return found


def _is_python(item: object) -> bool:
    try:
        return isinstance(item, str) and conda.parse(item).name == "python"
    except conda.MatchSpecError:
        return False


def _add_dependency(
    found: CondaEnvironment, item: object, available_python: str, foreign: list[tuple[str, conda.MatchSpec]]
) -> CondaEnvironment:
    """Return `found` with one dependency added. Conda packages are added to `foreign`. Raises RequirementsError."""
    if isinstance(item, dict) and set(item) == {"pip"}:
        return replace(found, requirements=found.requirements + parse("\n".join(_texts(item["pip"]))))
    spec, written = _match_spec(item), _printable_start(str(item))
    if spec.name == "python":
        return replace(found, python=_conda_python(spec, written, available_python))
    if spec.name != "pip":
        foreign.append((written, spec))
    return found


def _match_spec(item: object) -> conda.MatchSpec:
    if isinstance(item, dict) and len(item) == 1:
        name, value = next(iter(item.items()))
        written = _printable_start(f"{name}: {value}")
        raise RequirementsError(
            f"condaEnvFile lists {written!r}, which YAML reads as a mapping. Write name=version, such as python=3.11."
        )
    try:
        if not isinstance(item, str):
            raise conda.MatchSpecError("it isn't text")
        return conda.parse(item)
    except conda.MatchSpecError as error:
        written = _printable_start(str(item))
        raise RequirementsError(
            f"condaEnvFile lists {written!r}, which isn't a package specification: {error}. Correct it."
        ) from None


def _foreign_message(foreign: list[tuple[str, conda.MatchSpec]]) -> str:
    """Return the message about conda packages, with what to write instead."""
    shown = foreign[:MAX_MESSAGES]
    more = f" and {len(foreign) - len(shown)} more" if len(foreign) > len(shown) else ""
    message = (
        f"condaEnvFile lists conda packages ({', '.join(text for text, _ in shown)}{more}), "
        "which can't be installed on this server."
    )
    if lines := [spec.requirement for _, spec in shown if spec.is_python_package]:
        message += f" Move them to its 'pip:' section, if the package index has them: {', '.join(lines)}."
    if others := [spec.name for _, spec in shown if not spec.is_python_package]:
        message += f" The index doesn't have {', '.join(others)}, which aren't Python packages: remove them."
    if sum(bool(spec.build) for _, spec in foreign) > MAX_MESSAGES / 2:
        message += " 'conda env export --from-history' lists only the packages that you asked for."
    return message


def _conda_dependencies(text: str) -> list[object]:
    from netguard import safe_yaml  # imported here because most builds have no conda file

    text = without_mark(text)
    _limit(text)
    try:
        document = safe_yaml.load(text)
    except safe_yaml.UnsupportedYamlError as reason:
        raise RequirementsError(f"condaEnvFile {reason}.") from None
    dependencies = document.get("dependencies", []) if isinstance(document, dict) else None
    if isinstance(document, dict) and dependencies is None:  # "dependencies:" with nothing below it
        return []
    if not isinstance(dependencies, list):
        raise RequirementsError(
            "condaEnvFile isn't a conda environment. Write a YAML mapping with a list of 'dependencies'."
        )
    return dependencies


def _texts(items: object) -> list[str]:
    items = [] if items is None else items
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise RequirementsError(
            "The 'pip:' section of condaEnvFile isn't a list of requirements. Write one requirement per list item."
        )
    return items


def _conda_python(spec: conda.MatchSpec, written: str, available: str) -> str:
    """Return the minor version of Python: the available one if `spec` allows it, or the only one that it allows."""
    if not spec.version or not available:
        return ""
    with contextlib.suppress(conda.MatchSpecError):
        if spec.allows_python(available):
            return available
        if len(versions := spec.python_versions()) == 1:
            return versions[0]
    raise RequirementsError(
        f"condaEnvFile requires {written}, but this server has Python {available}. Change the version there."
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
