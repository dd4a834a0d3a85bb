"""The compose file is valid and matches the code."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings
from pytest_django import Settings

from dashboard.ops.supervisor import programs

Services = dict[str, Any]
COMPOSE = settings.BASE_DIR / "docker-compose.yml"


@pytest.fixture(scope="module")
def services() -> Services:
    return yaml.safe_load(COMPOSE.read_text())["services"]


def test_the_compose_file_follows_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_an_invalid_compose_file_is_detected(tmp_path: Path) -> None:
    broken = tmp_path / "compose.yml"
    broken.write_text("services: {web: {image: x, ports: {wrong: true}}}")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(broken)]
    assert subprocess.run(command, capture_output=True).returncode == 1


def test_every_part_has_a_container(services: Services) -> None:
    assert set(services) == {"web", "worker", "beat", "mms", "redis", "postgres"}


@pytest.mark.parametrize("name", ["web", "worker", "beat"])
def test_a_container_runs_a_program_that_exists(services: Services, settings: Settings, name: str) -> None:
    settings.SERVE = {services[name]["environment"]["SERVE"]}
    assert services[name]["command"] == ["python", "manage.py", "run", name]
    assert name in [program.name for program in programs.programs()]


def test_only_the_mms_has_access_to_its_data(services: Services) -> None:
    assert services["mms"]["environment"]["SERVE"] == "mms"
    volumes = [volume for name, service in services.items() if name != "mms" for volume in service.get("volumes", [])]
    assert not {volume.split(":")[0] for volume in services["mms"]["volumes"]} & {v.split(":")[0] for v in volumes}


def test_database_and_redis_are_not_reachable_from_outside(services: Services) -> None:
    assert "ports" not in services["redis"]
    assert "ports" not in services["postgres"]


def test_no_secret_has_a_default() -> None:
    for name in ("SECRET_KEY", "POSTGRES_PASSWORD", "REDIS_PASSWORD"):
        assert f"${{{name}:?" in COMPOSE.read_text()


def test_no_command_line_shows_a_secret(services: Services) -> None:
    for service in services.values():
        assert "_PASSWORD}" not in str(service.get("command"))


def test_the_image_is_built_once(services: Services) -> None:
    """Several concurrent builds with one name fail with `already exists`."""
    assert [name for name, service in services.items() if "build" in service] == ["web"]


def test_no_container_leaves_an_anonymous_volume() -> None:
    dockerfile = (settings.BASE_DIR / "Dockerfile").read_text()
    assert not [line for line in dockerfile.splitlines() if line.startswith("VOLUME")]


@pytest.mark.parametrize("name", ["web", "worker", "beat", "mms"])
def test_the_projects_containers_have_no_privileges(services: Services, name: str) -> None:
    assert services[name]["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in services[name]["security_opt"]


def test_the_mms_publishes_its_api_and_its_gateway(services: Services, settings: Settings) -> None:
    published = {port.rpartition(":")[2] for port in services["mms"]["ports"]}
    assert published == {str(settings.PORT), str(settings.GATEWAY_PORT)}
    ours = yaml.safe_load(COMPOSE.read_text())["x-environment"]["GATEWAY_URL"]
    gateway = next(port for port in services["mms"]["ports"] if port.endswith(f":{settings.GATEWAY_PORT}"))
    default_port = gateway.partition(":-")[2].partition("}")[0]
    assert ours == f"${{GATEWAY_URL:-http://localhost:{default_port}}}"
