"""The first request for a log over /v1/ returns its lines. Workers fetch those that follow."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from dashboard.models import Role
from deployments.live import events
from deployments.models import HostingAccount, Service
from tests.doubles.mms import MMS, hang_until_disconnect
from tests.support.lifecycle import account_at
from tests.support.programs import Program, person, token_of
from tests.support.workshop import make_image, make_manifest, make_service

pytestmark = pytest.mark.django_db
LOG = b"loading\nready\n"


@pytest.fixture
def server() -> Iterator[MMS]:
    with MMS(extensions=True) as server:
        yield server


@pytest.fixture
def account(server: MMS, live_redis: Any) -> HostingAccount:
    return account_at(server.url)


@pytest.fixture
def service(server: MMS, account: HostingAccount) -> Service:
    server.logs["service-iris"] = LOG
    return make_service(make_image(make_manifest(account)), "iris")


@pytest.fixture
def program(account: HostingAccount) -> Program:
    return Program(token_of(person("sam", account, Role.VIEWER)))


def log_requests(server: MMS) -> int:
    return sum("/log" in request.path for request in server.requests)


def test_the_first_request_reads_the_log_at_the_server(server: MMS, service: Service, program: Program) -> None:
    path = f"/v1/accounts/{service.account.name}/services/{service.pk}/log/"
    first = program.get(path)
    assert first.text == LOG.decode()
    asked = log_requests(server)
    server.logs["service-iris"] += b"more\n"
    assert program.get(path).text == LOG.decode()  # workers fetch the rest
    assert log_requests(server) == asked
    events.clear_interest(f"log:service:{service.pk}")  # as after a pause in requests
    assert program.get(f"{path}?after={first.headers['X-Log-Position']}").text == "more\n"


def test_a_server_that_does_not_respond_delays_the_first_request_only(
    server: MMS, service: Service, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dashboard.actions.logs.FIRST_READ_SECONDS", 0.2)
    server.plan("GET", "log", hang_until_disconnect)
    path = f"/v1/accounts/{service.account.name}/services/{service.pk}/log/"
    answer = program.get(path)  # would otherwise wait until the server disconnects
    assert (answer.status_code, answer.text) == (200, "")
    assert answer.headers["X-Log-Error"]


def test_a_server_that_must_not_be_called_is_not(server: MMS, service: Service, program: Program) -> None:
    HostingAccount.objects.update(not_before=timezone.now() + timedelta(minutes=5))
    answer = program.get(f"/v1/accounts/{service.account.name}/services/{service.pk}/log/")
    assert (answer.status_code, answer.text) == (200, "")
    assert log_requests(server) == 0
