"""The site's pip configuration file (index, certificates, proxy), translated for uv.

Administrators know its format. It is the only configuration of packages that a build reads: files of uv and pip in
other folders, and their variables, could name an index that the site's operators don't know about.
"""

import configparser
import re
from collections.abc import Mapping
from pathlib import Path

# pip's options, with uv's variable and the separator of its lists.
_OPTIONS = {
    "index-url": ("UV_DEFAULT_INDEX", ""),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "cert": ("SSL_CERT_FILE", ""),
    "client-cert": ("SSL_CLIENT_CERT", ""),
    "timeout": ("UV_HTTP_TIMEOUT", ""),
    "default-timeout": ("UV_HTTP_TIMEOUT", ""),
    "retries": ("UV_HTTP_RETRIES", ""),
    "proxy": ("ALL_PROXY", ""),
}
# Variables that aren't about packages: uv needs them to run programs and to reach the network.
_INHERITED = re.compile(
    r"PATH|LANG|LC_\w+|TMPDIR|TZ|LD_LIBRARY_PATH|SSL_CERT_FILE|SSL_CERT_DIR|(?:https?|all|no)_proxy", re.IGNORECASE
)
_PASSWORD = re.compile(r"(?<=://)[^/@\s]+(?=@)")


class InvalidConfigError(Exception):
    """The configuration file can't be read. The message has the reason."""


def uv_environment(config: Path | None, environment: Mapping[str, str], home: Path) -> dict[str, str]:
    """Return the environment for uv: of `environment` what isn't about packages, and the settings in `config`.

    `home` is an empty folder, so that uv finds neither configuration nor passwords in the user's. Raises
    InvalidConfigError.
    """
    result = {name: value for name, value in environment.items() if _INHERITED.fullmatch(name)}
    result |= {"HOME": str(home), "NETRC": "/dev/null", "UV_KEYRING_PROVIDER": "disabled"}
    for option, value in _settings(config).items():
        name, separator = _OPTIONS.get(option, ("", ""))
        if name and value:
            result[name] = separator.join(value.split()) if separator else value.strip()
    if "UV_INDEX" in result:  # like pip, use the best version from all indexes, regardless of their order
        result["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return result


def uv_arguments(config: Path | None) -> list[str]:
    """Return the settings that uv accepts only as options, and the option to read no other files."""
    no_index = _settings(config).get("no-index", "").strip().lower()
    return ["--no-config", *(["--no-index"] if no_index in {"1", "true", "yes", "on"} else [])]


def redact_passwords(line: str) -> str:
    """Return `line` with the user and password of every URL replaced."""
    return _PASSWORD.sub("****", line)


def _settings(config: Path | None) -> dict[str, str]:
    """Return pip's options by their long name. Those of `pip install` override the global ones."""
    if config is None:
        return {}
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(config.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidConfigError(f"{config}: {error.strerror or error}") from None
    except (configparser.Error, UnicodeDecodeError) as error:
        raise InvalidConfigError(f"{config} isn't a pip configuration file: {str(error).splitlines()[0]}") from None
    found: dict[str, str] = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            found |= {name.replace("_", "-"): value for name, value in parser.items(section)}
    return found
