"""Single calls to a server: each results in a response, or in an error whose class determines whether to retry."""

import os
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from deployments.client import errors, wire
from deployments.client.client import MMSClient
from tests.doubles import mms as faults
from tests.doubles.mms import MMS, OldDialect, Reply
from tests.support.clock import quiet_seconds

REQUEST = wire.NewModel("iris", "http://files.example/iris.pkl", [], "", "", False)


def client_of(url: str, token: str = MMS.token, **limits: float) -> MMSClient:
    return MMSClient(url, "s", "g", "a", token=token, api_version="2017-06-01-privatepreview", **limits)


def register(mms: MMS, **limits: float) -> wire.Model:
    with client_of(mms.url, MMS.token, **limits) as client:
        return client.register_model(REQUEST, "request-1")


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (faults.status(400), errors.RejectedError),
        (faults.status(401), errors.TokenRefusedError),
        (faults.status(403), errors.ForbiddenError),
        (faults.status(404), errors.NotFoundError),
        (faults.status(405), errors.NotSupportedError),
        (faults.status(409), errors.ConflictError),
        (faults.status(429), errors.BusyError),
        (faults.status(500), errors.ServerFaultError),
        (faults.html(502), errors.ServerFaultError),
        (faults.status(503), errors.ServerFaultError),
        (faults.status(503, None, Retry_After="1"), errors.BusyError),
        (faults.status(302, None, Location="http://elsewhere.example/"), errors.RedirectedError),
        (faults.status(303, None, Location="http://elsewhere.example/"), errors.OutcomeUnknownError),
        (faults.status(304), errors.InvalidResponseError),
        (faults.drop, errors.NoResponseError),
        (faults.lose_answer, errors.NoResponseError),
        (faults.truncate, errors.OutcomeUnknownError),
        (faults.garbage, errors.InvalidResponseError),
        (faults.status(201, []), errors.InvalidResponseError),
        (faults.status(201, {"name": "no id"}), errors.InvalidResponseError),
        (faults.status(200, None), errors.InvalidResponseError),
    ],
)
def test_every_outcome_has_its_error(mms: MMS, fault: faults.Fault, kind: type[errors.MMSError]) -> None:
    mms.plan("POST", "models", fault)
    with pytest.raises(errors.MMSError) as error:
        register(mms)
    assert isinstance(error.value, kind)
    assert str(error.value)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://no-such-host.invalid", "nonsense", "ftp://x", "http://["]
)
def test_a_request_that_was_never_sent_is_safe_to_send_again(url: str) -> None:
    with client_of(url) as client, pytest.raises(errors.NotSentError):
        client.register_model(REQUEST, "request-1")


def test_a_certificate_that_cannot_be_trusted_names_itself(mms: MMS) -> None:
    with client_of(mms.url.replace("http", "https")) as client, pytest.raises(errors.MMSError):
        client.list_models()


def test_a_server_that_hangs_costs_the_read_timeout(mms: MMS) -> None:
    mms.plan("POST", "models", faults.hang(3))
    started = time.perf_counter()
    with pytest.raises(errors.NoResponseError, match="too long"):
        register(mms, read_timeout=0.2)
    assert quiet_seconds(time.perf_counter() - started) < 1


def test_ten_bytes_a_second_end_at_the_deadline(mms: MMS) -> None:
    mms.plan("POST", "models", faults.drip)
    started = time.perf_counter()
    with pytest.raises(errors.NoResponseError, match="not complete"):
        register(mms, deadline=0.5)
    assert quiet_seconds(time.perf_counter() - started) < 2


def test_an_answer_without_end_is_cut_off(mms: MMS) -> None:
    mms.plan("POST", "models", faults.status(201, "x" * 4 * 1024**2))
    with pytest.raises(errors.NoResponseError, match="larger than 4 MB"):
        register(mms)


def test_the_error_of_an_oversized_list_names_the_list_not_its_last_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.client.client.MAX_LIST_BYTES", 2 * 1024**2)
    with MMS(dialect=OldDialect()) as mms, client_of(mms.url) as client:
        for n in range(4):
            mms.add_model(f"iris-{n}", description="x" * 600_000)
        with pytest.raises(errors.NoResponseError, match=r"^The list of models is larger than 2 MB"):
            client.list_models()


def test_the_error_of_a_slow_list_names_the_list_not_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is over before the next page is requested on a new connection."""
    page = wire.page

    def slow(data: Any) -> Any:
        time.sleep(0.5)
        return page(data)

    monkeypatch.setattr(wire, "page", slow)
    with MMS(dialect=OldDialect()) as mms, client_of(mms.url, deadline=0.4) as client:
        for n in range(4):
            mms.add_model(f"iris-{n}")
        closed = faults.answer(lambda reply: Reply(200, reply.body, {"Connection": "close"}))
        mms.plan("GET", "models", closed)
        with pytest.raises(errors.NoResponseError, match=r"^The list of models was not complete after"):
            client.list_models()


def busy(mms: MMS, retry_after: str) -> float | None:
    mms.plan("POST", "models", faults.status(429, None, Retry_After=retry_after))
    with pytest.raises(errors.BusyError) as error:
        register(mms)
    return error.value.retry_after


@pytest.mark.parametrize(("header", "seconds"), [("7", 7), ("0", 0), ("soon", None), ("-5", None)])
def test_retry_after_may_be_seconds(mms: MMS, header: str, seconds: float | None) -> None:
    assert busy(mms, header) == seconds


@pytest.mark.parametrize(("ahead", "seconds"), [(60, 60), (-86400, 0)])
def test_retry_after_may_be_a_date(mms: MMS, ahead: int, seconds: float) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=ahead), usegmt=True)
    assert busy(mms, date) == pytest.approx(seconds, abs=10)


def test_a_redirect_is_not_followed_with_the_token(mms: MMS) -> None:
    with MMS() as other:
        reply = Reply(308, headers={"Location": f"{other.url}/steal"})
        mms.plan("GET", "models", lambda connection, effect: connection.reply(reply))
        with client_of(mms.url) as client, pytest.raises(errors.RedirectedError):
            client.list_models()
        assert not other.requests


def test_a_netrc_file_does_not_replace_the_token(mms: MMS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setitem(os.environ, "NETRC", str(netrc))
    register(mms)
    assert mms.requests[0].headers["authorization"] == f"Bearer {mms.token}"


def test_an_error_never_repeats_a_secret(mms: MMS) -> None:
    request = wire.NewImage("m1", "", "registry.example", "puller", "registry-password-7351")
    said = {"error": {"message": f"login with registry-password-7351 by {mms.token}", "details": [mms.token]}}
    mms.plan("POST", "images", faults.status(400, said))
    with client_of(mms.url) as client, pytest.raises(errors.RejectedError) as error:
        client.create_image(request, "request-1")
    told = str(error.value) + repr(error.value.failure)
    assert "login with … by …" in told
    assert "7351" not in told
    assert mms.token not in told
    assert "7351" not in repr(request)


def test_ids_cannot_leave_their_place_in_a_path(mms: MMS) -> None:
    with client_of(mms.url) as client, pytest.raises(errors.NotFoundError):
        client.get_service("../models?x=#")
    assert mms.requests[0].path.startswith("/services/..%2Fmodels%3Fx%3D%23")


@pytest.mark.parametrize("operation_id", ["", "a/b", "x" * 999, "two words"])
def test_an_operation_without_usable_id_is_no_operation(mms: MMS, operation_id: str) -> None:
    mms.plan("POST", "images", faults.status(202, None, x_ms_request_id=operation_id))
    request = wire.NewImage("m1", "", "registry.example", "puller", "secret")
    with client_of(mms.url) as client:
        accepted = client.create_image(request, "request-1")
    assert accepted.is_pending
    assert accepted.operation_id == ""


def test_the_states_of_several_operations_take_one_call_per_200(mms: MMS) -> None:
    mms.extensions = True
    ids = [f"operation-{number}" for number in range(450)]
    mms.operations = {key: {"id": key, "state": "Running", "done": None} for key in ids[1:]}
    with client_of(mms.url) as client:
        assert not client.has_operation_ids
        found = client.get_operations(ids)
        assert client.has_operation_ids
    assert list(found) == ids[1:], "the first doesn't exist"
    assert len(mms.calls("GET", "/operations")) == 3


def test_long_ids_are_requested_in_parts_that_proxies_accept(mms: MMS) -> None:
    mms.extensions = True
    ids = [f"{number:03}" + "é/" * 40 for number in range(100)]
    with client_of(mms.url) as client:
        client.get_operations(ids)
    asked = [request.query["ids"][0].split(",") for request in mms.calls("GET", "/operations")]
    assert [one for part in asked for one in part] == ids
    assert all(sum(len(one.encode()) * 3 for one in part) < 8000 for part in asked)


def test_unrequested_and_invalid_states_are_ignored(mms: MMS) -> None:
    mms.extensions = True
    statuses = [{"id": "A-1", "state": "Running"}, {"id": "b", "state": "Failed"}, {"id": "c"}, 7]
    mms.plan("GET", "/operations", faults.status(200, statuses))
    with client_of(mms.url) as client:
        assert list(client.get_operations(["a-1", "c"])) == ["a-1"]


@pytest.mark.parametrize("statuses", [(100,), (102,), (103,), (103, 103), (100, 102, 103, 199)], ids=str)
def test_informational_responses_are_skipped(mms: MMS, statuses: tuple[int, ...]) -> None:
    mms.add_service("iris")
    mms.plan("GET", "services", faults.preceded_by(*statuses))
    mms.plan("POST", "images", faults.preceded_by(*statuses))
    request = wire.NewImage("m1", "", "registry.example", "puller", "secret")
    with client_of(mms.url) as client:
        assert [service.name for service in client.list_services().items] == ["iris"]
        assert client.create_image(request, "request-1").operation_id in mms.operations
        assert client.list_images().items == [], "the connection is used again"


def test_endless_informational_responses_are_an_error(mms: MMS) -> None:
    mms.plan("GET", "services", faults.preceded_by(*[103] * 50))
    with client_of(mms.url) as client, pytest.raises(errors.NoResponseError, match="20 informational responses"):
        client.list_services()


def test_a_switch_of_protocols_is_an_unexpected_status(mms: MMS) -> None:
    mms.plan("GET", "services", faults.preceded_by(101))
    with client_of(mms.url) as client, pytest.raises(errors.InvalidResponseError, match="unexpected status 101"):
        client.list_services()
