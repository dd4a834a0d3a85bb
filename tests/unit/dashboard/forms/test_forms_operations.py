"""Actions on an operation (retry, clone, cancel, decide, refresh) and its logs."""

from uuid import uuid4

import pytest
from django.test import Client
from redis import Redis

from dashboard.models import Role
from deployments.live import events, redis
from deployments.models import HostingAccount, Operation
from deployments.models.operation import State
from tests.site import wait_until
from tests.support.workshop import make_account, make_image, make_manifest, make_model, make_service, sign_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def account() -> HostingAccount:
    return make_account()


@pytest.fixture
def scientist(account: HostingAccount) -> Client:
    return sign_in("sam", account, Role.SCIENTIST)


@pytest.fixture
def redis_in_reach(live_redis: Redis) -> Redis:
    """Return Redis once this process connects again: an earlier test may have found it unreachable."""
    wait_until(lambda: redis.execute(lambda link: link.ping(), fallback=False), 5, "Redis")
    return live_redis


@pytest.fixture
def operation(scientist: Client) -> Operation:
    scientist.post("/accounts/lab/models/new/", {"name": "iris", "url": "https://models.example/iris.pkl"})
    return Operation.objects.get()


def end(operation: Operation, state: State) -> None:
    Operation.objects.filter(pk=operation.pk).update(state=state, error_message="the server said no")


def url(operation: Operation, act: str) -> str:
    return f"/accounts/lab/operations/{operation.pk}/{act}/"


def test_a_failed_operation_is_retried_as_a_new_one(scientist: Client, operation: Operation) -> None:
    end(operation, State.FAILED)
    answer = scientist.post(url(operation, "retry"))
    again = Operation.objects.get(retry_of=operation)
    assert answer.headers["Location"] == f"/accounts/lab/operations/{again.pk}/"
    assert again.body == operation.body


def test_an_operation_that_has_not_failed_is_not_retried_and_the_page_explains_why(
    scientist: Client, operation: Operation
) -> None:
    page = scientist.post(url(operation, "retry"), follow=True)
    assert "Only a failed or canceled operation can be retried" in page.text
    assert Operation.objects.count() == 1


def test_an_unsent_operation_is_canceled_immediately(scientist: Client, operation: Operation) -> None:
    scientist.post(url(operation, "cancel"))
    operation.refresh_from_db()
    assert operation.state == State.CANCELED


def test_a_user_decides_about_an_uncertain_operation(scientist: Client, operation: Operation) -> None:
    Operation.objects.update(state=State.UNCERTAIN, error_code="NeedsDecision")
    scientist.post(url(operation, "settle"), {"send_again": "no"})
    operation.refresh_from_db()
    assert operation.state == State.FAILED
    assert "already resolved" in scientist.post(url(operation, "settle"), {"send_again": "yes"}, follow=True).text


def test_abandoned_polling_can_be_resumed(scientist: Client, operation: Operation) -> None:
    Operation.objects.update(state=State.RUNNING, next_poll_at=None, mms_operation_id="x")
    scientist.post(url(operation, "resume"))
    operation.refresh_from_db()
    assert operation.next_poll_at is not None


def test_clone_opens_the_form_of_its_kind(scientist: Client, operation: Operation) -> None:
    answer = scientist.get(url(operation, "clone"))
    assert answer.headers["Location"] == f"/accounts/lab/models/new/?clone={operation.pk}"
    assert scientist.get(answer.headers["Location"]).status_code == 200


def test_retrying_a_deletion_requires_the_permission_to_delete(scientist: Client, account: HostingAccount) -> None:
    service = make_service(make_image(make_manifest(account, make_model(account))), created_by="olga")
    operator = sign_in("olga", account, Role.OPERATOR)
    operator.post(f"/accounts/lab/services/{service.pk}/delete/")
    operation = Operation.objects.get()
    end(operation, State.FAILED)
    assert scientist.post(url(operation, "retry")).status_code == 403
    assert operator.post(url(operation, "retry")).status_code == 302


@pytest.mark.parametrize("act", ["retry", "cancel", "settle", "resume"])
def test_actions_require_post_and_permission(
    account: HostingAccount, operation: Operation, scientist: Client, act: str
) -> None:
    assert scientist.get(url(operation, act)).status_code == 405
    assert sign_in("vera", account, Role.VIEWER).post(url(operation, act)).status_code == 403
    elsewhere = sign_in("otto", make_account("elsewhere"), Role.OPERATOR)
    assert elsewhere.post(f"/accounts/elsewhere/operations/{operation.pk}/{act}/").status_code == 404
    assert scientist.post(f"/accounts/lab/operations/{uuid4()}/{act}/").status_code == 404


def test_refresh_redirects_only_to_this_site(scientist: Client, redis_in_reach: Redis) -> None:
    refresh = "/accounts/lab/refresh/"
    assert scientist.post(refresh, {"next": "/accounts/lab/models/"}).headers["Location"] == "/accounts/lab/models/"
    assert scientist.post(refresh, {"next": "https://evil.example/"}).headers["Location"] == "/accounts/lab/"
    assert scientist.post(refresh, {"next": "//evil.example/"}).headers["Location"] == "/accounts/lab/"


def test_the_log_page_shows_the_lines_and_records_interest(
    scientist: Client, operation: Operation, redis_in_reach: Redis
) -> None:
    events.append_log(events.operation_log_key(operation), ["step 1", "<b>step 2</b>"], at=20)
    page = scientist.get(url(operation, "log"))
    assert "step 1\n&lt;b&gt;step 2&lt;/b&gt;\n</pre>" in page.text
    assert str(operation.pk) in events.current_interests("log:operation:")


def test_the_log_is_followed_from_a_position_to_its_end(
    scientist: Client, operation: Operation, redis_in_reach: Redis
) -> None:
    key = events.operation_log_key(operation)
    events.append_log(key, ["one", "two"], at=8)
    first = scientist.get(url(operation, "log"), {"after": "0"})
    assert first.text == "one\ntwo\n"
    assert first.headers["Content-Type"].startswith("text/plain")
    events.append_log(key, ["three"], at=14)
    end(operation, State.FAILED)
    second = scientist.get(url(operation, "log"), {"after": first.headers["X-Log-Position"]})
    assert (second.text, "X-Log-End" in second.headers) == ("three\n", False)
    last = scientist.get(url(operation, "log"), {"after": second.headers["X-Log-Position"]})
    assert (last.text, last.headers["X-Log-End"]) == ("", "1")


def test_the_log_can_be_downloaded(scientist: Client, operation: Operation, redis_in_reach: Redis) -> None:
    events.append_log(events.operation_log_key(operation), [f"line {number}" for number in range(5000)], at=1)
    answer = scientist.get(url(operation, "log"), {"download": ""})
    assert answer.headers["Content-Disposition"] == f'attachment; filename="operation_log-{operation.pk}.txt"'
    assert answer.text.splitlines()[-1] == "line 4999"


def test_a_log_without_redis_or_with_an_invalid_position_is_not_an_error(
    scientist: Client, operation: Operation
) -> None:
    assert scientist.get(url(operation, "log")).status_code == 200
    assert scientist.get(url(operation, "log"), {"after": "nonsense"}).status_code == 200
    assert scientist.get(url(operation, "log"), {"after": "1-1\r\nX: y"}).status_code == 200


def test_the_logs_of_images_and_services(scientist: Client, account: HostingAccount, redis_in_reach: Redis) -> None:
    image = make_image(make_manifest(account, make_model(account)))
    assert scientist.get(f"/accounts/lab/images/{image.pk}/log/").status_code == 404
    build = Operation.objects.create(account=account, kind="create_image", image=image, requested_by="sam")
    answer = scientist.get(f"/accounts/lab/images/{image.pk}/log/")
    assert answer.headers["Location"] == url(build, "log")
    service = make_service(image, revisions=[{"number": 2}])
    events.append_log(events.service_log_key(service), ["init() took 0.2 s"], at=1)
    assert "init() took 0.2 s" in scientist.get(f"/accounts/lab/services/{service.pk}/log/").text
