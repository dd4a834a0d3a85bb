"""Invalid settings stop every command with one sentence that names the setting."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from django.conf import settings

from dashboard.ops.supervisor import programs
from tests.site import OURS


def manage(**environment: str) -> subprocess.CompletedProcess[str]:
    """Return the result of `manage.py up` in an environment where it ends before it starts a process."""
    values = {**os.environ, **environment}
    command = [sys.executable, "manage.py", "up"]
    return subprocess.run(command, cwd=settings.BASE_DIR, env=values, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("PORT", "http", "PORT must be a whole number, not 'http'."),
        ("PORT", "65536", "PORT must be between 1 and 65535, not 65536."),
        ("GATEWAY_PORT", "8000", "GATEWAY_PORT must be a port other than PORT=8000, at most 65535."),
        ("PORT", "65535", "GATEWAY_PORT must be a port other than PORT=65535, at most 65535."),
        (
            "ALLOWED_ORIGINS",
            "https://a.example/path",
            "ALLOWED_ORIGINS must be origins such as https://app.example.com",
        ),
        ("SERVE", "pages", "SERVE must be a comma-separated list of: dashboard, mms."),
        ("KEEP_OPERATIONS_DAYS", "3", "KEEP_OPERATIONS_DAYS must be between 7 and 36500, not 3."),
        ("SECRET_KEY_FILE", "/nowhere", "SECRET_KEY_FILE must be the path of a file that this user may read."),
        ("DEBUG", "maybe", "DEBUG must be true or false, not 'maybe'."),
        ("LOG_LEVEL", "loud", "LOG_LEVEL must be DEBUG, INFO, WARNING or ERROR, not 'LOUD'."),
        ("REDIS_URL", ":hidden@host:6379/0", "REDIS_URL is invalid. Write it as redis://"),
        ("TRUSTED_PROXIES", "proxy.example", "TRUSTED_PROXIES must be addresses and networks such as"),
        ("SESSION_HOURS", "0", "SESSION_HOURS must be at least 1, not 0."),
        ("OIDC_ROLES", "ml-team=lab:boss", "OIDC_ROLES: write 'ml-team=lab:boss' as group=account:role or group=admin"),
        ("OIDC_ISSUER", "https://id.example", "OIDC_ISSUER requires OIDC_CLIENT_ID and OIDC_CLIENT_SECRET."),
        ("PASSWORD_SIGN_IN", "false", "PASSWORD_SIGN_IN=false requires OIDC_ISSUER. Without it, nobody could sign in."),
        ("DATABASE_URL", "psql://me:hidden@x/y", "DATABASE_URL is invalid. Write it as postgres://"),
        ("DATABASE_URL", "postgres://me:hidden@x:port/y", "DATABASE_URL is invalid. Write it as postgres://"),
    ],
)
def test_an_invalid_value_is_reported_in_one_sentence(name: str, value: str, sentence: str, tmp_path: Path) -> None:
    done = manage(DATA_DIR=str(tmp_path / "data"), **{name: value})
    assert done.returncode == 1
    assert done.stderr.startswith(sentence)
    assert done.stderr.count("\n") == 1
    assert "hidden" not in done.stderr


def test_a_site_with_reload_serves_this_machine_only(tmp_path: Path) -> None:
    done = manage(DATA_DIR=str(tmp_path / "data"), RELOAD="true", HOST="0.0.0.0")
    assert done.returncode == 1
    assert done.stderr == "RELOAD=true works on this machine only: HOST must be 127.0.0.1, not '0.0.0.0'.\n"


def test_a_data_folder_that_cannot_be_created_is_reported_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = manage(DATA_DIR=str(tmp_path / "file" / "data"))
    assert done.returncode == 1
    assert done.stderr.startswith(f"Can't use DATA_DIR, because of {tmp_path}/file/data: Not a directory.")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_a_data_folder_of_another_user_is_reported_in_one_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    done = manage(DATA_DIR=str(tmp_path))
    assert done.stderr.startswith("Can't use DATA_DIR, because of ")
    assert done.stderr.count("\n") == 1


ADDRESSES = """
import json, os
os.environ["DJANGO_SETTINGS_MODULE"] = "dashboard.settings"
from django.conf import settings
names = ("SITE_URL", "FILES_URL", "MMS_URL", "GATEWAY_URL", "LOCAL_GATEWAY_URL", "ALLOWED_HOSTS", "REDIS_URL")
print(json.dumps([{name: getattr(settings, name) for name in names}, str(settings.DATABASES["default"]["NAME"])]))
"""


def addresses(**environment: str) -> Any:
    values = {name: value for name, value in os.environ.items() if not OURS.match(name)} | environment
    command = [sys.executable, "-c", ADDRESSES]
    done = subprocess.run(command, cwd=settings.BASE_DIR, env=values, capture_output=True, text=True, timeout=60)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("host", "base"),
    [("::1", "http://[::1]"), ("[::1]", "http://[::1]"), ("::", "http://[::1]"), ("0.0.0.0", "http://127.0.0.1")],
)
def test_urls_have_brackets_around_ipv6_addresses(tmp_path: Path, host: str, base: str) -> None:
    found, _ = addresses(DATA_DIR=str(tmp_path), HOST=host, PORT="8100")
    assert [found[name] for name in ("SITE_URL", "FILES_URL", "MMS_URL")] == [f"{base}:8100"] * 3
    assert found["GATEWAY_URL"] == found["LOCAL_GATEWAY_URL"] == f"{base}:8101"
    assert found["ALLOWED_HOSTS"] == ["127.0.0.1", "[::1]", "localhost"]


def test_paths_of_the_data_folder_are_quoted_in_urls(tmp_path: Path) -> None:
    folder = tmp_path / "a #b%20?é"
    found, database = addresses(DATA_DIR=str(folder), ALLOWED_HOSTS="::1,models.example")
    assert database == str(folder / "db.sqlite3")
    assert unquote(urlsplit(found["REDIS_URL"]).path) == str(folder / "run" / "redis.sock")
    assert found["ALLOWED_HOSTS"] == ["[::1]", "models.example"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [folder.name]


UNDER_TLS = """
import os, pytest  # with which static files need no preparation
os.environ["DJANGO_SETTINGS_MODULE"] = "dashboard.settings"
import django
django.setup()
from django.test import Client
answer = Client(headers={"Host": "models.example.com"}).get("/sign-in/", secure=True)
print(answer.status_code, answer.headers["Strict-Transport-Security"], answer.cookies.output())
from django.conf import settings
print(settings.SESSION_COOKIE_NAME, settings.SESSION_COOKIE_SECURE, settings.KNOWN_BROWSER_COOKIE_NAME)
"""


def test_with_tls_cookies_are_limited_to_the_host_and_hsts_is_set(tmp_path: Path) -> None:
    values = {**os.environ, "DATA_DIR": str(tmp_path / "data"), "SITE_URL": "https://models.example.com"}
    command = [sys.executable, "-c", UNDER_TLS]
    done = subprocess.run(command, cwd=settings.BASE_DIR, env=values, capture_output=True, text=True, timeout=60)
    assert "200 max-age=31536000 Set-Cookie: __Host-csrftoken=" in done.stdout, done.stderr
    assert "HttpOnly; Max-Age" in done.stdout
    assert "Path=/; SameSite=Lax; Secure" in done.stdout
    assert "Domain" not in done.stdout
    assert "__Host-sessionid True __Host-known-browser" in done.stdout


def test_without_trusted_proxies_no_forwarded_address_is_accepted(settings: Any) -> None:
    assert "--no-proxy-headers" in programs._web().command
    settings.TRUSTED_PROXIES = ["10.0.0.7", "10.1.0.0/16"]
    command = programs._web().command
    assert command[command.index("--forwarded-allow-ips") + 1] == "10.0.0.7,10.1.0.0/16"


@pytest.mark.parametrize(
    ("environment", "public", "local"),
    [
        ({}, "http://127.0.0.1:8001", "http://127.0.0.1:8001"),
        ({"PORT": "8100", "GATEWAY_PORT": "9000"}, "http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ({"HOST": "10.0.0.7"}, "http://10.0.0.7:8001", "http://10.0.0.7:8001"),
        ({"HOST": "::1"}, "http://[::1]:8001", "http://[::1]:8001"),
        ({"SITE_URL": "http://models.lan:8000/", "HOST": "0.0.0.0"}, "http://models.lan:8001", "http://127.0.0.1:8001"),
        # A proxy, a published port, a path: the mapping isn't known, and the web server serves scoring URLs as well.
        ({"SITE_URL": "https://models.example"}, "https://models.example", "http://127.0.0.1:8001"),
        ({"SITE_URL": "http://localhost:8080"}, "http://localhost:8080", "http://127.0.0.1:8001"),
        ({"GATEWAY_URL": "https://scoring.example/"}, "https://scoring.example", "http://127.0.0.1:8001"),
        ({"MMS_URL": "http://mms:8000"}, "http://127.0.0.1:8001", "http://mms:8001"),
        ({"MMS_URL": "http://mms:80"}, "http://127.0.0.1:8001", "http://mms:80"),
    ],
)
def test_scoring_urls_name_the_gateway(environment: dict[str, str], public: str, local: str, tmp_path: Path) -> None:
    code = "from dashboard import settings; print(settings.GATEWAY_URL, settings.LOCAL_GATEWAY_URL)"
    kept = {name: value for name, value in os.environ.items() if not OURS.match(name)}
    values = {**kept, "DATA_DIR": str(tmp_path), **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=settings.BASE_DIR, env=values, capture_output=True, text=True
    )
    assert done.stdout.split() == [public, local], done.stderr
