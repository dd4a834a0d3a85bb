"""Types of request fields, with the limits of the reference and a message for each violation."""

import re
from collections.abc import Callable
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from mms.images import runtimes
from mms.images.plan import requirements
from netguard.urls import CREDENTIALS_MESSAGE, has_credentials


def field_error(message: str) -> PydanticCustomError:
    """Return the validation error with this message. pydantic formats braces, so they are doubled."""
    return PydanticCustomError("refused", message.replace("{", "{{").replace("}", "}}"))


def matching(pattern: str, message: str) -> AfterValidator:
    """Return a validator for strings that must match all of `pattern`; `message` is its error."""
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if not compiled.fullmatch(text):
            raise field_error(message)
        return text

    return AfterValidator(check)


def _without_nul(text: str) -> str:
    if "\0" in text:  # PostgreSQL can't store it
        raise field_error("must not contain a NUL character.")
    return text


def _http_url(text: str) -> str:
    """Validate an absolute http(s) URL, the only kind that the image builder fetches."""
    if has_credentials(text):
        raise field_error(CREDENTIALS_MESSAGE)
    try:
        parts = urlsplit(text)
        is_valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid or re.search(r"[\s\x00-\x1f\x7f]", text):
        raise field_error("must be an absolute http or https URL without spaces.")
    return text


def _pip_requirements(text: str) -> str:
    """Apply the rules of a build to requirements, or to the URL of a file with them."""
    return _checked_requirements(text, requirements.parse)


def _conda_environment(text: str) -> str:
    """Apply the rules of a build to a conda file, or to its URL. Only the build knows which Python is available."""
    return _checked_requirements(text, lambda content: requirements.parse_conda(content, ""))


def _checked_requirements(text: str, parse: Callable[[str], object]) -> str:
    if url := requirements.url_in(text):
        _http_url(url)
        return text
    try:
        parse(text)
    except requirements.RequirementsError as error:
        raise field_error(f"can't be used: {error}") from None
    return text


_REGISTRY = r"([A-Za-z0-9][A-Za-z0-9.:-]*|\[[0-9A-Fa-f:.]+\](:[0-9]+)?)(/[\w./-]*)?"


def _registry_location(text: str) -> str:
    """Validate `https://host[:port][/path]`, `host[:port][/path]`, or `oci://local` for this machine's store."""
    scheme, _, rest = text.rpartition("://")
    if scheme == "oci" and rest != "local":
        raise field_error("must be oci://local, this machine's store, if it begins with oci://.")
    if scheme not in {"", "http", "https", "oci"} or not re.fullmatch(_REGISTRY, rest):
        raise field_error("must be the address of a registry, such as https://registry.example, or oci://local.")
    return text


def _canonical_runtime(text: str) -> str:
    try:
        return runtimes.canonical_name(text)
    except runtimes.UnknownRuntimeError as unknown:
        raise field_error(str(unknown)) from None


def _only(word: str) -> AfterValidator:
    """Return a validator for a string that must be `word`, ignoring case."""

    def check(text: str) -> str:
        if text.lower() != word.lower():
            raise field_error(f"must be {word}.")
        return word

    return AfterValidator(check)


Text = Annotated[str, AfterValidator(_without_nul)]
Url = Annotated[str, Field(max_length=4096), AfterValidator(_http_url)]
MimeType = Annotated[str, Field(max_length=200), matching(r"[\x20-\x7e]*", "must be a MIME type.")]
ModelName = Annotated[
    str, Field(max_length=32), matching(r"[A-Za-z0-9-]+", "may contain letters, digits and hyphens only.")
]
Tag = Annotated[str, Field(max_length=29), matching(r"[A-Za-z0-9]+", "may contain letters and digits only.")]
# The reference allows letters, digits and hyphens. Clients of 2017 send file names, and an asset's ID is its file name
# in the image, so dots and underscores are allowed as well.
AssetId = Annotated[
    str,
    Field(max_length=32),
    matching(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", "may contain letters, digits, hyphens, dots and underscores only."),
]
ServiceName = Annotated[
    str,
    Field(max_length=63),
    matching(
        r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?",
        "may contain letters, digits, hyphens, dots and underscores, and begins and ends with a letter or digit.",
    ),
]
ModelReference = Annotated[Text, Field(min_length=1, max_length=36)]
Requirements = Annotated[Text, Field(max_length=65536), AfterValidator(_pip_requirements)]
CondaEnvironment = Annotated[Text, Field(max_length=65536), AfterValidator(_conda_environment)]
RegistryLocation = Annotated[str, Field(max_length=400), AfterValidator(_registry_location)]
Runtime = Annotated[str, Field(max_length=64), AfterValidator(_canonical_runtime)]
Registered = Annotated[str, _only("Registered")]
Docker = Annotated[str, _only("Docker")]
# Parsing YAML takes up to 40 ms per kB, and the fast parser crashes on deep nesting.
KubeConfig = Annotated[Text, Field(min_length=1, max_length=64 * 1024)]
PullSecret = Annotated[Text, Field(min_length=1, max_length=200)]
Id = Annotated[Text, Field(min_length=1, max_length=64)]
