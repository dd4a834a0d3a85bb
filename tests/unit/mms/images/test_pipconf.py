"""The host's pip settings, translated for uv."""

from pathlib import Path

import pytest

from mms.images.packages.pipconf import redact_passwords, uv_arguments, uv_environment


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which all of pip's configuration files are in a temporary folder."""
    (tmp_path / "pip.conf").write_text("")
    return {
        "HOME": str(tmp_path),
        "XDG_CONFIG_DIRS": str(tmp_path / "xdg"),
        "PIP_CONFIG_FILE": str(tmp_path / "pip.conf"),
    }


def write(environment: dict[str, str], text: str) -> None:
    Path(environment["PIP_CONFIG_FILE"]).write_text(text)


def test_pips_configuration_files_are_read(home: dict[str, str]) -> None:
    write(
        home,
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
""",
    )
    found = uv_environment(home)
    assert found["UV_DEFAULT_INDEX"] == "https://user:pass@index.example/simple"
    assert found["UV_INDEX"] == "https://one.example/simple https://two.example/simple"
    assert found["UV_INDEX_STRATEGY"] == "unsafe-best-match"
    assert found["UV_FIND_LINKS"] == "/wheels,/more"
    assert found["UV_INSECURE_HOST"] == "index.example one.example"
    assert found["SSL_CERT_FILE"] == "/etc/ca.pem"
    assert found["ALL_PROXY"] == "http://proxy.example:3128"
    assert found["UV_HTTP_TIMEOUT"] == "60"


def test_pips_variables_override_its_files(home: dict[str, str]) -> None:
    write(home, "[global]\nindex-url = https://file.example/simple\n")
    found = uv_environment(home | {"PIP_INDEX_URL": "https://variable.example/simple"})
    assert found["UV_DEFAULT_INDEX"] == "https://variable.example/simple"


@pytest.mark.parametrize("name", ["UV_DEFAULT_INDEX", "UV_INDEX_URL"])
def test_uvs_own_settings_take_precedence(home: dict[str, str], name: str) -> None:
    write(home, "[global]\nindex-url = https://file.example/simple\n")
    found = uv_environment(home | {name: "https://uv.example/simple"})
    assert [value for key, value in found.items() if "INDEX" in key] == ["https://uv.example/simple"]


def test_a_single_index_leaves_uvs_strategy_unchanged(home: dict[str, str]) -> None:
    write(home, "[global]\nindex-url = https://file.example/simple\n")
    assert "UV_INDEX_STRATEGY" not in uv_environment(home)


@pytest.mark.parametrize("broken", ["[global\nindex-url", "index-url = x", "\xff\xfe"])
def test_an_invalid_configuration_file_is_ignored(home: dict[str, str], broken: str) -> None:
    Path(home["PIP_CONFIG_FILE"]).write_bytes(broken.encode("latin-1"))
    assert "UV_DEFAULT_INDEX" not in uv_environment(home)


def test_no_index_becomes_an_option(home: dict[str, str]) -> None:
    write(home, "[install]\nno_index = true\n")
    assert uv_arguments(home) == ["--no-index"]
    assert uv_arguments(home | {"PIP_NO_INDEX": "0"}) == []


def test_passwords_in_urls_are_redacted() -> None:
    line = "failed to fetch https://user:secret@index.example/simple and http://token@x/ but a@b.example stays"
    assert (
        redact_passwords(line)
        == "failed to fetch https://****@index.example/simple and http://****@x/ but a@b.example stays"
    )
