"""The whole workflow over the API, from a model to a deleted service: real HTTP, queue, build and processes."""

import threading

import pytest

from tests.journeys.api import FLOWERS, Api, call
from tests.site import wait_until

pytestmark = pytest.mark.slow
SPECIES = ["setosa", "virginica"]


class Load:
    """Load generator that scores continuously in several threads and records failures."""

    def __init__(self, url: str, key: str) -> None:
        self.url, self.key = url, key
        self.answered = 0
        self.failed: list[tuple[int, object]] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._score) for _ in range(4)]

    def _score(self) -> None:
        while not self._stop.is_set():
            status, answer, _ = call("POST", self.url, FLOWERS, self.key)
            self.answered += 1
            if status != 200 or answer["species"] != SPECIES:
                self.failed.append((status, answer))

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_a_model_is_deployed_scored_updated_and_deleted(api: Api, image: str) -> None:
    service = api.create_service("whole-job", image)
    status, answer = api.score(service)
    assert status == 200
    assert answer["species"] == SPECIES

    url = api.service(service)["scoringUri"]
    key = api.ask("GET", f"services/{service}/keys")[1]["primaryKey"]
    newer = api.create_image(api.create_manifest(api.register_model()))
    with Load(url, key) as load:
        status, _, headers = api.ask("PUT", f"services/{service}", {"imageId": newer, "acrImagePullSecret": "local"})
        assert status == 202
        api.wait(headers)
    assert load.answered > 10
    assert load.failed == []
    assert api.service(service)["imageId"] == newer

    status, _, _ = api.ask("DELETE", f"services/{service}")
    assert status == 200
    assert api.ask("GET", f"services/{service}")[0] == 404
    wait_until(lambda: call("POST", url, FLOWERS, key)[0] == 404, 5, "the gateway to remove the service")


def test_scoring_requires_a_key(api: Api, image: str) -> None:
    service = api.create_service("locked", image)
    url = api.service(service)["scoringUri"]
    assert call("POST", url, FLOWERS)[0] == 401
    assert call("POST", url, FLOWERS, "a guess")[0] == 401
    assert call("POST", url, FLOWERS, api.token)[0] == 401


def test_a_script_without_init_and_run_fails_the_build_with_a_reason(api: Api) -> None:
    manifest = api.create_manifest(api.register_model(), driver="train.py")
    with pytest.raises(AssertionError, match=r"The driver 'score' has no function init\(\) and run\(\)"):
        api.create_image(manifest)
