"""Requirements in an uploaded file are checked when the manifest is created, by the rules of a build."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from pytest_django import Settings

from mms.models import Manifest, Scope
from tests.doubles.files import Files, running_files
from tests.unit.mms.api.test_audit import Client, manifest_body, model_body

pytestmark = pytest.mark.django_db(transaction=True)


UPLOAD = f"/files/{'a' * 64}"


@pytest.fixture
def uploads(settings: Settings) -> Iterator[Files]:
    with running_files() as files:
        settings.FILES_URL = files.url
        yield files


@pytest.fixture
def client(live_redis: redis.Redis) -> Client:
    client = Client(Scope.WRITE)
    client.send("POST", "models", model_body())
    return client


def create(client: Client, **properties: str) -> tuple[int, Any]:
    runtime = {"runtimeType": "Python", "properties": properties}
    return client.send("POST", "manifests", manifest_body() | {"targetRuntime": runtime})


def test_invalid_requirements_in_an_upload_are_refused(client: Client, uploads: Files) -> None:
    uploads.put(f"{UPLOAD}/r.txt", b"numpy\n--extra-index-url https://pypi.example/simple\n")
    status, answer = create(client, pipRequirements=f"{uploads.url}{UPLOAD}/r.txt")
    assert status == 400
    assert "Requirement 2 is an option" in answer["error"]["message"]
    assert answer["error"]["details"][0]["target"] == "targetRuntime.properties.pipRequirements"
    uploads.put(f"{UPLOAD}/env.yml", b"dependencies: [{pip: ['six @ file:///six.whl']}]")
    assert create(client, condaEnvFile=f"{uploads.url}{UPLOAD}/env.yml")[0] == 400
    assert not Manifest.objects.exists()


def test_valid_requirements_in_an_upload_are_accepted(client: Client, uploads: Files) -> None:
    uploads.put(f"{UPLOAD}/r.txt", b"numpy\n")
    assert create(client, pipRequirements=f"{uploads.url}{UPLOAD}/r.txt")[0] == 200


def test_files_elsewhere_and_missing_uploads_are_left_to_the_build(client: Client, uploads: Files) -> None:
    uploads.put("/elsewhere.txt", b"--index-url https://pypi.example/simple\n")
    assert create(client, pipRequirements=f"{uploads.url}/elsewhere.txt")[0] == 200
    assert create(client, pipRequirements=f"{uploads.url}{UPLOAD}/missing.txt")[0] == 200
