"""The host's pip settings (index, certificates, proxy), translated for uv.

uv ignores pip's files and variables, but administrators configure there how this machine reaches packages. Settings
for uv itself take precedence.
"""

import configparser
import os
import re
import sys
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
    "proxy": ("ALL_PROXY", ""),
    "keyring-provider": ("UV_KEYRING_PROVIDER", ""),
}
# Earlier names of uv's settings. If one is set, the current name must not be added.
_OLDER = {"UV_DEFAULT_INDEX": "UV_INDEX_URL", "UV_INDEX": "UV_EXTRA_INDEX_URL"}
_PASSWORD = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def uv_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return `environment` with pip's settings added as uv's variables."""
    result = dict(environment)
    for option, value in _settings(environment).items():
        name, separator = _OPTIONS.get(option, ("", ""))
        if name and value and not {name, _OLDER.get(name, name)} & environment.keys():
            result[name] = separator.join(value.split()) if separator else value.strip()
    if "UV_INDEX" in result and "UV_INDEX_STRATEGY" not in environment:
        # Like pip, use the best version from all indexes, regardless of their order.
        result["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return result


def uv_arguments(environment: Mapping[str, str]) -> list[str]:
    """Return the pip settings that uv accepts only as command-line options."""
    no_index = _settings(environment).get("no-index", "").strip().lower()
    return ["--no-index"] if no_index in {"1", "true", "yes", "on"} else []


def redact_passwords(line: str) -> str:
    """Return `line` with the user and password of every URL replaced."""
    return _PASSWORD.sub("****", line)


def _settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return pip's options by their long name. Variables override files."""
    parser = configparser.RawConfigParser(strict=False)
    for path in _files(environment):
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue  # pip would report it, but a build can't fix the host's settings
    found: dict[str, str] = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            found |= {name.replace("_", "-"): value for name, value in parser.items(section)}
    prefix = "PIP_"
    return found | {
        name.removeprefix(prefix).lower().replace("_", "-"): value
        for name, value in environment.items()
        if name.startswith(prefix)
    }


def _files(environment: Mapping[str, str]) -> list[Path]:
    """Return pip's configuration files, lowest precedence first; see `pip config debug`."""
    explicit = environment.get("PIP_CONFIG_FILE", "")
    if explicit == os.devnull:
        return []
    home = Path(environment.get("HOME") or Path.home())
    config = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    systemwide = [Path(folder) / "pip/pip.conf" for folder in environment.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")]
    own = [home / ".pip/pip.conf", config / "pip/pip.conf", Path(sys.prefix) / "pip.conf"]
    return [*systemwide, Path("/etc/pip.conf"), *own, *([Path(explicit)] if explicit else [])]
