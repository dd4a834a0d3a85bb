"""Environment variables: their types, limits, defaults and files."""

from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from dashboard import environment


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in environment.VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", environment.VARIABLES)
def test_a_secret_can_be_in_a_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "secret"
    file.write_text("from the file\n")
    monkeypatch.setenv(f"{name}_FILE", str(file))
    assert environment.text(name) == "from the file"
    assert environment.is_set(name)


def test_an_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY_FILE", str(tmp_path))
    with pytest.raises(ImproperlyConfigured, match="SECRET_KEY_FILE must be the path of a file"):
        environment.text("SECRET_KEY")


@pytest.mark.parametrize("value", [None, ""])
def test_an_empty_value_counts_as_unset(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORT", "DEBUG", "HOST", "TRUSTED_PROXIES") if value is not None else ():
        monkeypatch.setenv(name, value or "")
    assert environment.number("PORT") == 8000
    assert environment.boolean("DEBUG") is False
    assert environment.text("HOST") == "127.0.0.1"
    assert environment.words("TRUSTED_PROXIES") == []
    assert not environment.is_set("PORT")


@pytest.mark.parametrize(("text", "value"), [("1", True), ("on", True), ("TRUE", True), ("no", False), ("off", False)])
def test_booleans(text: str, value: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEBUG", text)
    assert environment.boolean("DEBUG") is value


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PORT", "http", "PORT must be a whole number, not 'http'."),
        ("PORT", "0", "PORT must be between 1 and 65535, not 0."),
        ("SIGN_IN_TRIES", "0", "SIGN_IN_TRIES must be at least 1, not 0."),
        ("KEEP_AUDIT_DAYS", "40000", "KEEP_AUDIT_DAYS must be between 30 and 36500, not 40000."),
    ],
)
def test_numbers_have_limits(name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ImproperlyConfigured) as error:
        environment.number(name)
    assert str(error.value) == message


def test_a_variable_must_be_described_to_be_read() -> None:
    with pytest.raises(KeyError):
        environment.text("UNKNOWN")
