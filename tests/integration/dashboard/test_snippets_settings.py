"""API calls shown beside the forms for settings, members and users, tested with a real shell."""

import ast
import json
import re
import subprocess
from html import unescape
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.http import HttpResponse

from dashboard.models import Membership
from deployments.models import Cluster, HostingAccount, RegistryInfo
from tests.support.people import Cast, Lab, make_cast, make_lab
from tests.support.programs import Program, token_of
from tests.support.workshop import KUBE_CONFIG, REGISTRY_PASSWORD

pytestmark = pytest.mark.django_db
SECRET = 'it\'s "the" $SECRET'


@pytest.fixture
def lab(live_redis: Any) -> Lab:
    return make_lab()


@pytest.fixture
def cast(lab: Lab) -> Cast:
    return make_cast(lab.account)


@pytest.fixture
def program(cast: Cast) -> Program:
    return Program(token_of(get_user_model().objects.get(username="ada")))


def shown(page: str, what: str) -> str:
    found = re.search(f'id="command-{what}"[^>]*>(.*?)</pre>', page, re.DOTALL)
    assert found, "the page shows no command"
    return unescape(found[1])


def by_shell(page: str) -> tuple[str, str, dict[str, Any]]:
    """Run the command in a shell whose curl prints its arguments. Return method, path and body."""
    script = 'curl() { printf "%s\\0" "$@"; cat; }\n' + shown(page, "curl")
    done = subprocess.run(
        ["bash", "-euc", script], capture_output=True, text=True, timeout=10, env={"DASHBOARD_TOKEN": "t"}
    )
    assert not done.stderr
    *words, body = done.stdout.split("\0")
    assert "Authorization: Bearer t" in words
    url = next(word for word in words if "/v1/" in word)
    return words[words.index("-X") + 1], "/v1/" + url.partition("/v1/")[2], json.loads(body)


def by_python(page: str) -> tuple[str, dict[str, Any]]:
    """Evaluate the Python example with the secret from the environment. Return method and body."""
    calls = [node for node in ast.walk(ast.parse(shown(page, "python"))) if isinstance(node, ast.Call)]
    call = next(call for call in calls for word in call.keywords if word.arg == "json")
    (written,) = [word.value for word in call.keywords if word.arg == "json"]
    body = eval(compile(ast.Expression(written), "shown", "eval"), {"os": Environment})
    return call.func.attr.upper(), body  # type: ignore[attr-defined]


class Environment:
    environ = {"SECRET": SECRET}


def filled(body: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return the body with its placeholders "..." filled in by the reader."""
    assert {name for name, value in body.items() if value == "…"} <= set(more), body
    return body | more


def sent(program: Program, page: str, **more: Any) -> HttpResponse:
    """Send the shell's request with filled placeholders. Return the response. Python must send the same."""
    method, path, body = by_shell(page)
    python_method, python_body = by_python(page)
    assert python_method == method
    assert {name for name in body if body[name] != python_body[name]} <= {"password", "kube_config", "token"}
    return program.send(method, path, filled(body, **more))


def test_a_registry_is_added_and_changed(lab: Lab, cast: Cast, program: Program) -> None:
    settings = f"{lab.url}settings/registries"
    page = cast.operator.get(f"{settings}/new/").text
    assert by_python(page)[1]["password"] == SECRET
    fields = {"name": "acr", "location": "registry.example/team", "user": "puller", "password": SECRET}
    assert sent(program, page, **fields).status_code == 201
    assert RegistryInfo.objects.get(name="acr").password == SECRET
    page = cast.operator.get(f"{settings}/{lab.registry.pk}/").text
    assert REGISTRY_PASSWORD not in page
    method, path, body = by_shell(page)
    assert (method, path) == ("PATCH", f"/v1/accounts/lab/registries/{lab.registry.pk}/")
    assert "password" not in body
    assert program.send(method, path, body).status_code == 200
    assert RegistryInfo.objects.get(pk=lab.registry.pk).password == REGISTRY_PASSWORD


def test_a_cluster_is_added_and_shows_no_kubeconfig(lab: Lab, cast: Cast, program: Program) -> None:
    page = cast.operator.get(f"{lab.url}settings/clusters/new/").text
    config = json.dumps(
        {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": "https://cluster.example"}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
        }
    )
    assert sent(program, page, name="aks", pull_secret="acr", kube_config=config).status_code == 201
    assert Cluster.objects.filter(name="aks").exists()
    page = cast.operator.get(f"{lab.url}settings/clusters/{lab.cluster.pk}/").text
    assert KUBE_CONFIG not in page
    assert "kube_config" not in by_shell(page)[2]


def test_a_server_is_changed_and_an_account_added(lab: Lab, cast: Cast, program: Program) -> None:
    page = cast.operator.get(f"{lab.url}settings/").text
    method, path, body = by_shell(page)
    assert program.send(method, path, body).status_code == 200
    page = cast.admin.get("/add-account/").text
    fields = {"name": "far", "base_url": "https://mms.example", "subscription": "s", "resource_group": "g"}
    fields |= {"hosting_account": "h", "token": "t0ken", "client_secret": ""}
    body = filled(by_shell(page)[2], **fields)
    assert program.post("/v1/accounts/", {name: value for name, value in body.items() if value}).status_code == 201
    assert HostingAccount.objects.get(name="far").token == "t0ken"


def test_a_member_and_a_user_are_added(lab: Lab, cast: Cast, program: Program) -> None:
    page = cast.admin.get("/people/").text
    assert sent(program, page, name="nina").status_code == 201
    page = cast.operator.get(f"{lab.url}members/").text
    assert sent(program, page, name="nina").status_code == 201
    assert Membership.objects.filter(user__username="nina", account_id=lab.account.pk).exists()


def test_typed_text_is_quoted_for_the_shell(lab: Lab, cast: Cast) -> None:
    nasty = 'it\'s $(id) `id` "q" \\ END'
    form = {"name": nasty, "location": "registry.example/\nEND\nid", "user": "", "password": SECRET}
    page = cast.operator.post(f"{lab.url}settings/registries/new/", form).text
    body = by_shell(page)[2]
    assert body["name"] == nasty
    assert SECRET not in unescape(page)
