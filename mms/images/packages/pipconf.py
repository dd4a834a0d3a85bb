"""The host's settings of pip (index, certificates, proxy), as uv reads them.

uv looks at none of pip's files and variables, yet it is there that an administrator has written how packages are
reached from this machine. What is set for uv itself wins.
"""

import configparser
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

# Options of pip with what they are called in uv's environment. Lists are separated by what uv expects.
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
# Older names of the same settings of uv: where one is set, the newer one must not be added.
_OLDER = {"UV_DEFAULT_INDEX": "UV_INDEX_URL", "UV_INDEX": "UV_EXTRA_INDEX_URL"}
_PASSWORD = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def uv_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` with pip's settings added in uv's words."""
    result = dict(environment)
    for option, value in _settings(environment).items():
        name, separator = _OPTIONS.get(option, ("", ""))
        if name and value and not {name, _OLDER.get(name, name)} & environment.keys():
            result[name] = separator.join(value.split()) if separator else value.strip()
    if "UV_INDEX" in result and "UV_INDEX_STRATEGY" not in environment:
        # pip knows no order among indexes: the best version of all of them is taken.
        result["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return result


def uv_arguments(environment: Mapping[str, str]) -> list[str]:
    """The settings of pip that uv takes as an option only."""
    no_index = _settings(environment).get("no-index", "").strip().lower()
    return ["--no-index"] if no_index in {"1", "true", "yes", "on"} else []


def redact_passwords(line: str) -> str:
    """`line` with the user and password of every URL in it replaced."""
    return _PASSWORD.sub("****", line)


def _settings(environment: Mapping[str, str]) -> dict[str, str]:
    """pip's options by their long name, the strongest source winning: files, then variables."""
    parser = configparser.RawConfigParser(strict=False)
    for path in _files(environment):
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue  # pip would complain; it is not for the reader of a build log to mend it
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
    """Where pip looks, weakest first; see `pip config debug`."""
    named = environment.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return []
    home = Path(environment.get("HOME") or Path.home())
    config = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    systemwide = [Path(folder) / "pip/pip.conf" for folder in environment.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")]
    own = [home / ".pip/pip.conf", config / "pip/pip.conf", Path(sys.prefix) / "pip.conf"]
    return [*systemwide, Path("/etc/pip.conf"), *own, *([Path(named)] if named else [])]
