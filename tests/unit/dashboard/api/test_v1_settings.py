"""Administration of registries and clusters over the API, which never returns their secrets."""

import json
from typing import Any

import pytest

from dashboard.models import AuditEntry, Role
from deployments.models import Cluster, RegistryInfo
from deployments.models.operation import Kind, State
from tests.support.lifecycle import present
from tests.support.people import Lab, make_lab, make_operation
from tests.support.programs import Program, person, token_of

pytestmark = pytest.mark.django_db
REGISTRIES, CLUSTERS = "/v1/accounts/lab/registries/", "/v1/accounts/lab/clusters/"
PLANTED = "planted-password-7"


@pytest.fixture
def lab(live_redis: Any) -> Lab:
    return make_lab()


@pytest.fixture
def operator(lab: Lab) -> Program:
    return Program(token_of(person("otto", lab.account, Role.OPERATOR)))


def kubeconfig_with(token: str) -> str:
    return json.dumps(
        {
            "clusters": [{"name": "c", "cluster": {"server": "https://cluster.example"}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
    )


def test_data_scientists_get_only_names(lab: Lab, operator: Program) -> None:
    scientist = Program(token_of(person("sam", lab.account, Role.SCIENTIST)))
    assert scientist.get(REGISTRIES).json() == {"registries": [{"name": "our registry"}]}
    assert scientist.get(CLUSTERS).json() == {"clusters": [{"name": "this machine"}]}
    assert scientist.get(f"{REGISTRIES}{lab.registry.pk}/").status_code == 403
    (row,) = operator.get(REGISTRIES).json()["registries"]
    assert (row["location"], row["user"], row["password"]) == ("registry.example", "robot", "set")
    (row,) = operator.get(CLUSTERS).json()["clusters"]
    assert (row["pull_secret"], row["production"], row["kube_config"]) == ("local", False, "set")


def test_a_registry_is_added_changed_and_deleted_without_revealing_its_password(lab: Lab, operator: Program) -> None:
    wish = {"name": "second", "location": "two.example/team", "user": "robot", "password": PLANTED}
    made = operator.post(REGISTRIES, wish)
    assert made.status_code == 201
    assert made.json()["password"] == "set"
    assert made.json()["secret_set_by"] == "otto"
    url = made.headers["Location"]
    changed = operator.send("PATCH", url, {"name": "second place"})
    assert changed.json()["location"] == "two.example/team"
    assert RegistryInfo.objects.get(name="second place").password == PLANTED
    forgotten = operator.send("PATCH", url, {"forget": True})
    assert forgotten.json()["password"] == "not set"
    assert operator.get(url).json() == forgotten.json()
    assert operator.send("DELETE", url).status_code == 204
    assert operator.get(url).status_code == 404
    entries = AuditEntry.objects.order_by("pk")
    actions = ["add_registry", "change_registry", "change_registry", "delete_registry"]
    assert [entry.action for entry in entries] == actions
    assert present(entries[0].after)["password"] == "changed"
    assert entries[2].after == {"password": "forgotten"}
    assert PLANTED not in "".join([made.text, changed.text, *(f"{entry.before}{entry.after}" for entry in entries)])


def test_a_stored_password_is_never_sent_to_another_registry(lab: Lab, operator: Program) -> None:
    url = f"{REGISTRIES}{lab.registry.pk}/"
    for body in ({"location": "thief.example"}, {"user": "thief"}, {"location": "thief.example", "password": None}):
        answer = operator.send("PATCH", url, body)
        assert answer.status_code == 422
        assert set(answer.json()["error"]["fields"]) == {"password"}
    lab.registry.refresh_from_db()
    assert (lab.registry.location, lab.registry.user) == ("registry.example", "robot")
    assert operator.send("PATCH", url, {"location": "new.example", "password": "another"}).status_code == 200


def test_invalid_fields_are_named_without_returning_a_secret(lab: Lab, operator: Program) -> None:
    wishes: list[tuple[str, dict[str, Any], set[str]]] = [
        (REGISTRIES, {}, {"name", "location"}),
        (REGISTRIES, {"name": "our registry", "location": "a.example"}, {"name"}),
        (REGISTRIES, {"name": "x", "location": "a.example", "password": PLANTED}, {"user"}),
        (REGISTRIES, {"name": "x", "location": "a.example", "secret": PLANTED}, {"secret"}),
        (REGISTRIES, {"name": "x", "location": "a.example", "user": "u", "password": [PLANTED]}, {"password"}),
        (REGISTRIES, {"name": "x", "location": "a.example", "user": "u", "password": PLANTED * 999}, {"password"}),
        (CLUSTERS, {"name": "x", "pull_secret": "p"}, {"kube_config"}),
        (CLUSTERS, {"name": "x", "pull_secret": "p", "kube_config": f"a: {PLANTED}: b"}, {"kube_config"}),
        (CLUSTERS, {"name": "x", "pull_secret": "p", "kube_config": PLANTED, "production": "yes"}, {"production"}),
    ]
    for url, body, fields in wishes:
        answer = operator.post(url, body)
        assert answer.status_code == 422, body
        assert set(answer.json()["error"]["fields"]) == fields
        assert PLANTED not in answer.text
    assert (RegistryInfo.objects.count(), Cluster.objects.count()) == (1, 1)
    assert not AuditEntry.objects.exists()


def test_a_cluster_is_added_and_marked_as_production(lab: Lab, operator: Program) -> None:
    wish = {"name": "west", "kube_config": kubeconfig_with(PLANTED), "pull_secret": "pull"}
    made = operator.post(CLUSTERS, wish)
    assert made.status_code == 201, made.text
    assert (made.json()["kube_config"], made.json()["production"]) == ("set", False)
    changed = operator.send("PATCH", made.headers["Location"], {"production": True})
    assert changed.json()["production"] is True
    assert operator.send("PATCH", made.headers["Location"], {"name": "far west"}).json()["production"] is True
    assert PLANTED in str(Cluster.objects.get(name="far west").kube_config)
    assert PLANTED not in made.text + changed.text + str(list(AuditEntry.objects.values()))


def test_registries_and_clusters_of_open_operations_cannot_be_deleted(lab: Lab, operator: Program) -> None:
    make_operation(lab.image, state=State.QUEUED, body={"registry": lab.registry.pk})
    make_operation(lab.service, Kind.UPDATE_SERVICE, state=State.QUEUED, body={"cluster": lab.cluster.pk})
    for url in (f"{REGISTRIES}{lab.registry.pk}/", f"{CLUSTERS}{lab.cluster.pk}/"):
        assert operator.send("DELETE", url).status_code == 409
        assert operator.get(url).status_code == 200


def test_registries_and_clusters_of_another_account_are_not_found(lab: Lab, operator: Program) -> None:
    other = make_lab("other")
    for url in (f"{REGISTRIES}{other.registry.pk}/", f"{CLUSTERS}{other.cluster.pk}/"):
        for method, body in (("GET", None), ("PATCH", {"name": "mine"}), ("DELETE", None)):
            assert operator.send(method, url, body).status_code == 404


def test_a_connection_test_uses_the_stored_values_and_is_audited(lab: Lab) -> None:
    program = Program(token_of(person("otto", lab.account, Role.OPERATOR)))
    for place, row in (("registries", lab.registry), ("clusters", lab.cluster)):
        answer = program.post(f"/v1/accounts/lab/{place}/{row.pk}/test/")
        assert answer.status_code == 200
        found = answer.json()
        assert set(found) == {"works", "says", "advice"}
        entry = AuditEntry.objects.order_by("-pk")[0]
        assert (entry.via, entry.target, present(entry.after)["works"]) == ("api", str(row), found["works"])
    answer = program.post("/v1/accounts/lab/server/test/")
    assert answer.json()["works"] is False, "nothing listens at the address of the lab"
    assert AuditEntry.objects.order_by("-pk")[0].action == "test_server"
    scientist = Program(token_of(person("sam", lab.account, Role.SCIENTIST)))
    assert scientist.post("/v1/accounts/lab/server/test/").status_code == 403
