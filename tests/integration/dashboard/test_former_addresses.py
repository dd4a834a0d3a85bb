"""Uploads registered under a former FILES_URL are still found after it changes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import connection

from dashboard.files import store
from dashboard.ops.startup import prepare
from dashboard.templatetags.page import source
from mms.models import Model, State
from mms.operations import builds, run
from tests.asgi_server import Server
from tests.support import file_server
from tests.support.lifecycle import present
from tests.support.mms_rows import DRIVER, image_operation

DIGEST = "ab" * 32
FORMER = "http://127.0.0.1:8000"


def former_files_urls(data: Path, **environment: str) -> list[str]:
    """Return the former FILES_URLs that a process with this data folder recognizes."""
    code = "from dashboard.settings import *; print(*FORMER_FILES_URLS, sep='\\n')"
    values = {**os.environ, "DATA_DIR": str(data), **environment}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=django_settings.BASE_DIR, env=values, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_every_start_records_its_address_once(settings: Any, tmp_path: Path) -> None:
    settings.FILES_URLS_PATH = tmp_path / "files_urls"
    for url in (FORMER, FORMER, "http://127.0.0.1:9000", FORMER):
        settings.FILES_URL = url
        prepare.record_files_url()
    assert settings.FILES_URLS_PATH.read_text().splitlines() == [FORMER, "http://127.0.0.1:9000"]


def test_recorded_and_configured_addresses_except_the_current_one_are_former(tmp_path: Path) -> None:
    (tmp_path / "files_urls").write_text(f"{FORMER}\nhttp://127.0.0.1:9000\n")
    named = "http://old.example/, http://older.example"
    found = former_files_urls(tmp_path, FILES_URL="http://127.0.0.1:9000", FORMER_FILES_URLS=named)
    assert found == ["http://old.example", "http://older.example", FORMER]


def test_a_new_installation_has_no_former_address(tmp_path: Path) -> None:
    assert former_files_urls(tmp_path) == []


def test_an_upload_of_a_former_address_is_downloaded_from_the_current_one(settings: Any) -> None:
    settings.FORMER_FILES_URLS = [FORMER]
    settings.FILES_URL = "https://models.example"
    url = f"{FORMER}/files/{DIGEST}/iris.pkl?key=12"
    assert builds.current_url(url) == f"https://models.example/files/{DIGEST}/iris.pkl?key=12"


@pytest.mark.parametrize(
    "text",
    [
        f"{FORMER}0/files/{DIGEST}/iris.pkl",  # port 80000: a matching prefix isn't the same address
        f"{FORMER}/files/iris.pkl",
        f"{FORMER}/else/files/{DIGEST}/iris.pkl",
        f"http://elsewhere.example/files/{DIGEST}/iris.pkl",
        "scikit-learn==1.7.2",
        "",
    ],
)
def test_nothing_else_is_redirected(settings: Any, text: str) -> None:
    settings.FORMER_FILES_URLS = [FORMER]
    assert builds.current_url(text) == text


def test_pages_recognize_an_upload_of_a_former_address_and_hide_its_key(settings: Any) -> None:
    url = f"{FORMER}/files/{DIGEST}/iris.pkl?key=12"
    settings.FORMER_FILES_URLS = []
    settings.FILES_URL = "https://models.example"
    assert "Uploaded" not in source(url)
    settings.FORMER_FILES_URLS = [FORMER]
    assert source(url).startswith("Uploaded: iris.pkl ")
    assert "key" not in source(url)


def uploaded(content: bytes, name: str) -> str:
    """Return the URL under which an upload is registered now."""
    incoming = store.IncomingFile()
    incoming.write([content])
    return incoming.store(name).url


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_a_model_uploaded_before_the_change_can_be_built_into_a_new_image(settings: Any) -> None:
    settings.FILES_URL = FORMER
    operation = image_operation()
    manifest = present(operation.image).manifest
    manifest.assets[0]["url"] = uploaded(DRIVER.encode(), "score.py")
    manifest.save()
    Model.objects.filter(id=manifest.resolved_model_ids[0]).update(url=uploaded(b"a model", "model.bin"))
    with Server(file_server.application) as server:
        settings.FILES_URL, settings.FORMER_FILES_URLS = server.url, [FORMER]
        run.run(str(operation.id))
        connection.close()
    operation.refresh_from_db()
    assert operation.state == State.SUCCEEDED, operation.error
