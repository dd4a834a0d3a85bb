"""Access to the system status page, and its contents during failures."""

import time
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from dashboard.ops.supervisor import heartbeat
from deployments.live import redis
from deployments.models import HostingAccount, Operation
from mms.models import Revision, Service
from tests.support import mms_rows
from tests.support.clock import quiet_seconds
from tests.support.people import Cast, make_cast, make_lab

# The checks ask in threads of their own, which see only what is committed.
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def cast(live_redis: Any) -> Cast:
    for name in ("beat:dashboard+mms", "worker:celery", "worker:mms"):
        heartbeat.write(live_redis, name, time.time())
    return make_cast(make_lab().account)


def test_an_operator_sees_the_accounts_they_operate_and_no_other(cast: Cast) -> None:
    HostingAccount.objects.update(error="It is out.", error_at=timezone.now())
    own, stranger, admin = (person.get("/doctor/").text for person in (cast.operator, cast.stranger, cast.admin))
    assert "account lab" in own
    assert "elsewhere" not in own
    assert "account elsewhere" in stranger
    assert "account lab" not in stranger
    assert "iris" not in stranger
    assert "account lab" in admin
    assert "account elsewhere" in admin


def test_a_service_is_named_to_administrators_only(cast: Cast) -> None:
    image = mms_rows.image_operation().image
    assert image
    service = Service.objects.create(
        account=image.account, name="secret-plan", image=image, health="crashed", pull_secret="local"
    )
    Revision.objects.create(service=service, number=1, image=image, state="active")
    assert "secret-plan is crashed" in cast.admin.get("/doctor/").text
    page = cast.operator.get("/doctor/").text
    assert "secret-plan" not in page
    assert "1 of 1 service is not healthy" in page


def test_failures_come_first_with_advice(cast: Cast, live_redis: Any) -> None:
    live_redis.delete("heartbeat:worker:celery")
    page = cast.admin.get("/doctor/").text
    worker, right = page.index("<h3>worker</h3>"), page.index('aria-label="Passed checks"')
    assert worker < right
    assert "Its log is" in page[worker:right]
    assert 'data-state="failed"' in page[:worker]
    assert page.index("<dt", right) > right


def test_the_page_fetches_its_findings_alone(cast: Cast) -> None:
    part = cast.admin.get("/doctor/", headers={"HX-Request": "true", "HX-Target": "findings"}).text
    assert part.lstrip().startswith('<div id="findings"')
    assert 'data-refresh="clock"' in part
    assert "<html" not in part


def test_messages_of_a_server_are_shown_as_text(cast: Cast) -> None:
    evil = "<script>alert(1)</script> `<b>` & `"
    HostingAccount.objects.filter(name="lab").update(error=evil, error_at=timezone.now())
    page = cast.admin.get("/doctor/").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; <code>&lt;b&gt;</code> &amp; <code>" in page
    assert "<script>alert" not in page


def test_the_page_works_without_redis(cast: Cast, settings: Any, tmp_path: Any, monkeypatch: Any) -> None:
    settings.REDIS_URL = f"unix://{tmp_path}/nobody.sock"
    redis.connection.cache_clear()
    monkeypatch.setattr(redis, "_down_until", 0.0)
    started = time.monotonic()
    page = cast.operator.get("/doctor/")
    redis.connection.cache_clear()
    assert page.status_code == 200
    assert "Redis can&#x27;t be reached at" in page.text
    assert page.text.count("Unknown: Redis can&#x27;t be reached") == 3
    assert quiet_seconds(time.monotonic() - started) < 4


def test_waiting_operations_link_to_their_list(cast: Cast) -> None:
    Operation.objects.update(state="queued", next_poll_at=timezone.now() - timedelta(minutes=3))
    assert 'href="/accounts/lab/operations/?state=open"' in cast.operator.get("/doctor/").text


def test_only_operators_see_the_link(cast: Cast) -> None:
    shown = {name: 'href="/doctor/"' in person.get("/accounts/lab/").text for name, person in vars(cast).items()}
    assert {name for name, is_shown in shown.items() if is_shown} == {"operator", "admin"}
