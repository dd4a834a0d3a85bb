"""The site's pip configuration file, translated for uv. Nothing else is read."""

from pathlib import Path

import pytest

from mms.images.packages.pipconf import InvalidConfigError, redact_passwords, uv_arguments, uv_environment


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return the path of a configuration file."""
    return tmp_path / "pip.conf"


def environment(config: Path | None, **inherited: str) -> dict[str, str]:
    return uv_environment(config, inherited, Path("/empty"))


def test_the_options_of_the_file_are_translated(config: Path) -> None:
    config.write_text(
        """[global]
index-url = https://user:pass@index.example/simple
extra-index-url =
    https://one.example/simple
    https://two.example/simple
find-links = /wheels /more
trusted-host = index.example one.example
cert = /etc/ca.pem
proxy = http://proxy.example:3128
timeout = 60
[install]
no-index = no
"""
    )
    found = environment(config, SSL_CERT_FILE="/etc/other.pem")
    assert found["UV_DEFAULT_INDEX"] == "https://user:pass@index.example/simple"
    assert found["UV_INDEX"] == "https://one.example/simple https://two.example/simple"
    assert found["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    assert found["UV_FIND_LINKS"] == "/wheels,/more"
    assert found["UV_INSECURE_HOST"] == "index.example one.example"
    assert found["SSL_CERT_FILE"] == "/etc/ca.pem"
    assert found["ALL_PROXY"] == "http://proxy.example:3128"
    assert found["UV_HTTP_TIMEOUT"] == "60"


def test_variables_of_pip_and_uv_and_the_users_folder_are_not_passed_on(config: Path) -> None:
    config.write_text("[global]\nindex-url = https://file.example/simple\n")
    ours = dict.fromkeys(("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_CONFIG_FILE", "NETRC"), "x")
    folders = dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "VIRTUAL_ENV", "PYTHONPATH"), "/home/user")
    network = {"https_proxy": "http://proxy.example", "NO_PROXY": "a.example", "SSL_CERT_FILE": "/etc/ca.pem"}
    found = environment(config, PATH="/bin", **ours, **folders, **network)
    assert {name: value for name, value in found.items() if name in network} == network
    assert found["UV_DEFAULT_INDEX"] == "https://file.example/simple"
    assert (found["PATH"], found["HOME"], found["NETRC"]) == ("/bin", "/empty", "/dev/null")
    assert not {"x", "/home/user"} & set(found.values())


def test_without_a_file_there_are_no_settings() -> None:
    assert not [name for name in environment(None) if "INDEX" in name]
    assert uv_arguments(None) == ["--no-config"]


def test_a_single_index_leaves_uvs_strategy_unchanged(config: Path) -> None:
    config.write_text("[global]\nindex-url = https://file.example/simple\n")
    assert "UV_INDEX_STRATEGY" not in environment(config)


@pytest.mark.parametrize("broken", ["[global\nindex-url", "index-url = x", "\xff\xfe"])
def test_an_invalid_file_is_an_error(config: Path, broken: str) -> None:
    config.write_bytes(broken.encode("latin-1"))
    with pytest.raises(InvalidConfigError, match="isn't a pip configuration file"):
        environment(config)


def test_a_missing_file_is_an_error(config: Path) -> None:
    with pytest.raises(InvalidConfigError, match="No such file"):
        uv_arguments(config)


def test_no_index_becomes_an_option(config: Path) -> None:
    config.write_text("[install]\nno_index = true\n")
    assert uv_arguments(config) == ["--no-config", "--no-index"]


def test_passwords_in_urls_are_redacted() -> None:
    line = "failed to fetch https://user:secret@index.example/simple and http://token@x/ but a@b.example stays"
    assert (
        redact_passwords(line)
        == "failed to fetch https://****@index.example/simple and http://****@x/ but a@b.example stays"
    )
