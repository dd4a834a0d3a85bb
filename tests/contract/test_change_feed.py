"""Entity tags and change feeds of lists, an extension (docs/reference/mms-api.md)."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.contract.server import API_VERSION, Server, image_body, service_body, targets

NOUNS = ("models", "manifests", "images", "services")
VERSION = {"api-version": API_VERSION}


@pytest.fixture(autouse=True)
def _only_where_it_is_offered(server: Server) -> None:
    if "change-feed" not in server.send("GET", "models").headers.get("x-mms-extensions", ""):
        pytest.skip("this server does not offer it")


def cursor(server: Server, noun: str) -> str:
    return server.send("GET", noun).headers["x-mms-cursor"]


def changes(server: Server, noun: str, since: str) -> dict[str, Any]:
    answer = server.send("GET", noun, changedSince=since)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize("noun", NOUNS)
def test_an_unchanged_list_is_304_without_a_body(server: Server, noun: str) -> None:
    server.model()
    server.manifest()
    first = server.send("GET", noun)
    for sent in (first.headers["etag"], "W/" + first.headers["etag"], f'"other", {first.headers["etag"]}', "*"):
        again = server.raw("GET", noun, {"If-None-Match": sent}, params=VERSION)
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
        assert again.headers["x-mms-cursor"] == first.headers["x-mms-cursor"]


@pytest.mark.parametrize("noun", ["models", "manifests"])
def test_a_changed_list_has_another_entity_tag(server: Server, noun: str) -> None:
    tag = server.send("GET", noun).headers["etag"]
    created = server.model() if noun == "models" else server.manifest()
    answer = server.raw("GET", noun, {"If-None-Match": tag}, params=VERSION)
    assert answer.status_code == 200
    assert created["id"] in {item["id"] for item in answer.json()}


def test_a_filtered_list_has_an_entity_tag_and_no_cursor(server: Server) -> None:
    model = server.model()
    answer = server.send("GET", "models", name=model["name"])
    assert "x-mms-cursor" not in answer.headers
    again = server.raw("GET", "models", {"If-None-Match": answer.headers["etag"]}, params=VERSION)
    assert again.status_code == 304


@pytest.mark.parametrize("noun", ["models", "manifests"])
def test_new_resources_are_reported_once_and_as_in_the_list(server: Server, noun: str) -> None:
    since = cursor(server, noun)
    created = [server.model() if noun == "models" else server.manifest() for _ in range(3)]
    found = changes(server, noun, since)
    assert [item["id"] for item in found["changed"]] == [item["id"] for item in created]
    listed = {item["id"]: item for item in server.send("GET", noun).json()}
    assert found["changed"] == [listed[item["id"]] for item in created]
    assert (found["removed"], found["hasMore"]) == ([], False)
    assert found["cursor"] == cursor(server, noun)
    assert changes(server, noun, found["cursor"]) == {**found, "changed": []}


@pytest.mark.slow
def test_more_changes_than_fit_into_one_response_are_all_reported(server: Server) -> None:
    since = cursor(server, "models")
    with ThreadPoolExecutor(8) as pool:
        created = set(pool.map(lambda _: server.model()["id"], range(1003)))
    found, pages = [], 0
    while True:
        page = changes(server, "models", since)
        found += [item["id"] for item in page["changed"]]
        since, pages = page["cursor"], pages + 1
        if not page["hasMore"]:
            break
    assert len(found) == 1003
    assert set(found) == created
    assert pages == 2


def test_a_service_is_reported_when_it_changes_and_when_it_is_deleted(
    server: Server, buildable: dict[str, Any]
) -> None:
    since_images, since = cursor(server, "images"), cursor(server, "services")
    build = server.send("POST", "images", image_body(buildable["id"]))
    assert changes(server, "images", since_images)["changed"] == [], "an image is listed once it is built"
    image_id = server.finished(build)["resourceLocation"].split("/")[-1]
    assert [item["id"] for item in changes(server, "images", since_images)["changed"]] == [image_id]

    created = server.finished(server.send("POST", "services", service_body(image_id)))
    service_id = created["resourceLocation"].split("/")[-1]
    page = changes(server, "services", since)
    [service] = page["changed"]
    assert service == server.send("GET", f"services/{service_id}").json()
    assert service["revisions"][0]["state"] == "active"

    tag = server.send("GET", "services").headers["etag"]
    assert server.send("DELETE", f"services/{service_id}").status_code == 200
    page = changes(server, "services", page["cursor"])
    assert (page["changed"], page["removed"]) == ([], [service_id])
    answer = server.raw("GET", "services", {"If-None-Match": tag}, params=VERSION)
    assert service_id not in {item["id"] for item in answer.json()}


@pytest.mark.parametrize("text", ["", "x", "-1", "a-b", "1", "0" * 17 + "-1", "new-" + "9" * 19, "ä-1", "A-1"])
def test_a_malformed_cursor_is_400(server: Server, text: str) -> None:
    answer = server.send("GET", "models", changedSince=text)
    assert answer.status_code == 400
    assert targets(answer) == {"changedSince"}


def test_a_cursor_with_a_filter_is_400(server: Server) -> None:
    answer = server.send("GET", "models", changedSince=cursor(server, "models"), name="x")
    assert answer.status_code == 400
    assert targets(answer) == {"changedSince"}


def test_a_cursor_of_another_list_or_time_has_expired(server: Server) -> None:
    server.model()
    server.manifest()
    epoch, number = cursor(server, "models").split("-")
    for text in (cursor(server, "manifests"), f"{epoch}-{int(number) + 1}", f"{uuid.uuid4().hex[:16]}-{number}"):
        answer = server.send("GET", "models", changedSince=text)
        assert answer.status_code == 410, text
        assert answer.json()["error"]["code"] == "CursorExpired"


@pytest.mark.slow
def test_a_list_longer_than_a_batch_is_whole_and_in_order(server: Server) -> None:
    server.model()
    listed = server.send("GET", "models").json()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: server.model(), range(1200 - len(listed))))
    answer = server.send("GET", "models")
    items = answer.json()
    assert len(items) == len({item["id"] for item in items}) >= 1200
    assert [item["createdAt"] for item in items] == sorted(item["createdAt"] for item in items)
    assert "content-length" not in answer.headers, "it is sent while it is read"
    assert server.raw("HEAD", "models", params=VERSION).status_code == 200
    assert items == server.send("GET", "models").json()
