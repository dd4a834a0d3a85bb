"""Requests of users: what is stored, what is refused, what the preview shows."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone
from redis import Redis

from deployments.mirror import refresh
from deployments.models import Asset, HostingAccount, Image, Manifest, Operation, RegisteredModel, Service
from deployments.models.operation import Kind, State
from deployments.operations import queue, submit
from deployments.operations.submit import RequestRefusedError
from tests.doubles import mms as faults
from tests.doubles.mms import MMS
from tests.support.clock import quiet_seconds
from tests.support.lifecycle import (
    KUBE_TOKEN,
    PASSWORD,
    account_at,
    asset_of,
    cluster_of,
    image_of,
    manifest_of,
    present,
    register,
    registry_of,
    turn,
)

pytestmark = pytest.mark.django_db(transaction=True)


def model_of(account: HostingAccount, name: str = "iris") -> RegisteredModel:
    return RegisteredModel.objects.create(account=account, name=name, url="http://x/", mms_id=f"id-of-{name}")


def service_of(account: HostingAccount) -> Service:
    return Service.objects.create(account=account, name="iris", mms_id="service-1", cluster=cluster_of(account))


def test_a_request_returns_immediately_with_a_row_and_a_queue_message(
    account: HostingAccount, mms: MMS, live_redis: Redis
) -> None:
    operation = register(account)
    assert (operation.state, operation.requested_by) == (State.QUEUED, "ann")
    assert present(operation.model).mms_id is None
    assert not mms.requests
    [message] = live_redis.lrange("celery", 0, -1)
    assert json.loads(message)["headers"]["argsrepr"] == f"('{operation.pk}',)"


def test_the_body_contains_the_selected_values_with_rows_by_number(account: HostingAccount) -> None:
    manifest, registry = manifest_of(account), registry_of(account)
    operation = submit.create_image(account, "ann", manifest=manifest, registry=registry, description="one")
    assert operation.body == {"manifest": manifest.pk, "registry": registry.pk, "description": "one"}


@pytest.mark.parametrize(
    ("field", "chosen"),
    [
        ("name", {"name": ""}),
        ("name", {"name": "iris.pkl"}),
        ("name", {"name": "x" * 33}),
        ("name", {"name": "iris\n"}),
        ("tags", {"tags": ["good", "not good"]}),
        ("tags", {"tags": ["x" * 30]}),
        ("description", {"description": "x" * 201}),
        ("url", {"url": "iris.pkl"}),
        ("url", {"url": "file:///etc/passwd"}),
        ("url", {"url": "http://"}),
        ("url", {"url": "http://[::1"}),
        ("url", {"url": "http://files.example/a b"}),
    ],
)
def test_values_that_the_reference_forbids_are_rejected_by_field_and_not_stored(
    account: HostingAccount, field: str, chosen: dict[str, Any]
) -> None:
    with pytest.raises(RequestRefusedError) as refused:
        register(account, **chosen)
    assert refused.value.field == field
    assert not Operation.objects.exists()
    assert not RegisteredModel.objects.exists()


def test_a_manifest_needs_registered_models_and_distinct_assets(account: HostingAccount) -> None:
    def compose(**more: Any) -> Operation:
        chosen = {"models": [model_of(account, "a")], "assets": [], "driver": None, "runtime_type": "ScikitPython"}
        return submit.create_manifest(account, "ann", **chosen | more)

    unregistered = RegisteredModel.objects.create(account=account, name="new", url="http://x/")
    vanished = RegisteredModel.objects.create(
        account=account, name="old", url="http://x/", mms_id="gone", vanished_at=timezone.now()
    )
    cases: list[tuple[str, dict[str, Any]]] = [
        ("models", {"models": []}),
        ("models", {"models": [unregistered]}),
        ("models", {"models": [vanished]}),
        ("runtime_type", {"runtime_type": "Cobol"}),
        ("description", {"description": "x" * 513}),
        ("assets", {"assets": [asset_of(account, "twin"), asset_of(account, "twin")]}),
    ]
    for field, chosen in cases:
        RegisteredModel.objects.filter(name="a").delete()
        with pytest.raises(RequestRefusedError) as refused:
            compose(**chosen)
        assert refused.value.field == field
    assert not Manifest.objects.exists()


def test_rows_of_another_account_do_not_exist(account: HostingAccount, mms: MMS) -> None:
    other = account_at(mms.url, "other")
    with pytest.raises(RequestRefusedError, match="Not found in this account"):
        submit.create_image(account, "ann", manifest=manifest_of(other), registry=registry_of(account))
    with pytest.raises(RequestRefusedError, match="Not found in this account"):
        submit.delete_service(account, "ann", service=service_of(other))
    assert not Operation.objects.exists()


def test_a_second_open_operation_of_a_service_is_refused_naming_the_first(account: HostingAccount) -> None:
    service = service_of(account)
    first = submit.update_service(account, "ann", service=service, image=image_of(account))
    with pytest.raises(RequestRefusedError) as refused:
        submit.delete_service(account, "bob", service=service)
    assert str(first.pk) in refused.value.message
    assert "ann" in refused.value.message
    assert Operation.objects.count() == 1
    submit.cancel(first, "ann")
    assert submit.delete_service(account, "bob", service=service).state == State.QUEUED


def test_a_name_in_use_by_a_service_is_rejected(account: HostingAccount) -> None:
    service = service_of(account)
    chosen: dict[str, Any] = {"name": "iris", "image": image_of(account), "cluster": service.cluster}
    with pytest.raises(RequestRefusedError) as refused:
        submit.create_service(account, "ann", **chosen)
    assert refused.value.field == "name"
    Service.objects.update(vanished_at=timezone.now())
    assert submit.create_service(account, "ann", **chosen)
    with pytest.raises(RequestRefusedError):
        submit.create_service(account, "ann", **chosen)


def test_a_service_made_elsewhere_takes_the_only_clusters_pull_secret(account: HostingAccount, mms: MMS) -> None:
    service = Service.objects.create(account=account, name="iris", mms_id="service-1")
    with pytest.raises(RequestRefusedError, match="pull secret"):
        submit.update_service(account, "ann", service=service, image=image_of(account))
    cluster_of(account)
    turn(submit.update_service(account, "ann", service=service, image=image_of(account, "image-2")))
    assert mms.calls("PUT")[0].body["acrImagePullSecret"] == "puller"


def test_a_retry_is_a_new_operation_for_the_same_row(account: HostingAccount, mms: MMS) -> None:
    mms.plan("POST", "models", faults.status(400, {"error": {"message": "bad day"}}))
    failed = turn(register(account))
    again = submit.retry(failed, "bob")
    assert (again.retry_of, again.model, again.requested_by) == (failed, failed.model, "bob")
    assert turn(again).state == State.SUCCEEDED
    failed.refresh_from_db()
    assert (failed.state, failed.error_message) == (State.FAILED, "bad day")
    assert again.pk != failed.pk
    sent = [call.headers["x-ms-client-request-id"] for call in mms.calls("POST")]
    assert sent == [str(failed.pk), str(again.pk)]
    with pytest.raises(RequestRefusedError, match="created in the meantime"):
        submit.retry(failed, "bob")


@pytest.mark.parametrize("ended", ["Failed", "Canceled"])
def test_a_service_that_could_not_be_created_is_one_row_and_is_retried_as_an_update(
    account: HostingAccount, mms: MMS, ended: str
) -> None:
    image, cluster = image_of(account), cluster_of(account)
    asked = turn(submit.create_service(account, "ann", name="iris", image=image, cluster=cluster))
    left = next(iter(mms.services.values()))
    left["state"] = ended
    mms.end(ended, {"code": "ServiceCrashed", "message": "init() raised"})
    failed = turn(asked)
    refresh.refresh(account.pk, [Service])
    assert failed.state == ended.lower()
    assert Service.objects.get().mms_id == left["id"], "no second row, as if created by another client"
    again = turn(submit.retry(failed, "bob"))
    assert (again.kind, again.retry_of, again.service) == (Kind.UPDATE_SERVICE, failed, failed.service)
    assert [call.body["imageId"] for call in mms.calls("PUT")] == [image.mms_id]
    left["state"] = "Succeeded"
    mms.end()
    assert turn(again).state == State.SUCCEEDED
    with pytest.raises(RequestRefusedError, match="created in the meantime"):
        submit.retry(Operation.objects.get(pk=failed.pk), "bob")


def test_a_server_that_removes_a_failed_service_gets_it_created_again(account: HostingAccount, mms: MMS) -> None:
    image, cluster = image_of(account), cluster_of(account)
    asked = turn(submit.create_service(account, "ann", name="iris", image=image, cluster=cluster))
    mms.services.clear()
    mms.end("Failed", {"code": "NoRoom", "message": "no room"})
    failed = turn(asked)
    assert (failed.state, Service.objects.get().mms_id) == (State.FAILED, None)
    assert submit.retry(failed, "bob").kind == Kind.CREATE_SERVICE


def test_only_failed_operations_without_a_running_retry_can_be_retried(account: HostingAccount, mms: MMS) -> None:
    with pytest.raises(RequestRefusedError):
        submit.retry(register(account), "bob")
    mms.plan("POST", "models", faults.status(400))
    failed = turn(register(account, name="other"))
    submit.retry(failed, "bob")
    with pytest.raises(RequestRefusedError, match="open operation"):
        submit.retry(failed, "bob")


def test_a_retry_without_its_registry_is_rejected(account: HostingAccount) -> None:
    registry = registry_of(account)
    operation = submit.create_image(account, "ann", manifest=manifest_of(account), registry=registry)
    submit.cancel(operation, "ann")
    registry.delete()
    operation = Operation.objects.get()
    with pytest.raises(RequestRefusedError) as refused:
        submit.retry(operation, "ann")
    assert refused.value.field == "registry"


def test_a_row_deleted_before_sending_fails_the_operation_with_the_reason(account: HostingAccount, mms: MMS) -> None:
    operation = submit.create_image(account, "ann", manifest=manifest_of(account), registry=registry_of(account))
    account.registries.all().delete()
    operation = turn(operation)
    assert operation.state == State.FAILED
    assert "registry" in operation.error_message
    assert not mms.calls("POST")


def preview_image(account: HostingAccount) -> dict[str, Any]:
    return submit.preview("create_image", manifest=manifest_of(account), registry=registry_of(account))


def preview_service(account: HostingAccount) -> dict[str, Any]:
    return submit.preview("create_service", name="s", image=image_of(account), cluster=cluster_of(account))


def preview_manifest(account: HostingAccount) -> dict[str, Any]:
    asset = Asset.objects.create(account=account, name="score", url="http://files/score.py?key=access-key-1&v=2")
    models = [model_of(account)]
    return submit.preview(
        "create_manifest", models=models, assets=[asset], driver=asset, runtime_type="Python", pip_requirements="numpy"
    )


@pytest.mark.parametrize("preview", [preview_image, preview_service, preview_manifest])
def test_a_preview_shows_all_but_the_secrets(
    account: HostingAccount, preview: Callable[[HostingAccount], dict[str, Any]]
) -> None:
    shown = json.dumps(preview(account), ensure_ascii=False)
    assert "…" in shown
    for secret in (PASSWORD, KUBE_TOKEN, "access-key-1"):
        assert secret not in shown


def test_the_request_matches_the_preview(account: HostingAccount, mms: MMS) -> None:
    chosen: dict[str, Any] = {"name": "iris", "url": "http://files.example/iris.pkl", "tags": ["a"], "unpack": True}
    shown = submit.preview("register_model", **chosen)
    turn(submit.register_model(account, "ann", **chosen))
    assert mms.calls("POST")[0].body == shown


def test_a_request_without_redis_is_stored_and_quick(mms: MMS, settings: Any) -> None:
    import time

    from deployments.live import redis

    settings.REDIS_URL = "unix:///nowhere/redis.sock"
    redis.connection.cache_clear()
    try:
        started = time.perf_counter()
        register(account_at(mms.url))
        assert quiet_seconds(time.perf_counter() - started) < 1
    finally:
        redis.connection.cache_clear()
        redis.reset_outage()
    assert Operation.objects.get().next_poll_at


def test_a_message_is_sent_after_idle_connections_were_closed(account: HostingAccount, live_redis: Redis) -> None:
    """For example, Redis was restarted, or a firewall dropped them."""
    register(account)
    for _ in range(3):
        live_redis.client_kill_filter(_type="normal", skipme=True)
        queued = live_redis.llen("celery")
        operation = register(account, name=f"m-{queued}")
        assert live_redis.llen("celery") == present(queued) + 1
        assert present(operation.next_poll_at) > timezone.now(), "the message has its chance first"


def test_without_a_message_the_next_tick_sends_the_request(account: HostingAccount, live_redis: Redis) -> None:
    live_redis.rpush("celery", *range(queue.MAX_QUEUE_LENGTH))
    operation = register(account)
    operation.refresh_from_db()
    assert present(operation.next_poll_at) <= timezone.now()


def test_no_table_contains_secrets_in_plain_text(account: HostingAccount) -> None:
    from django.db import connection

    registry_of(account)
    cluster_of(account)
    told = ""
    with connection.cursor() as cursor:
        for table in ("hostingaccount", "registryinfo", "cluster"):
            cursor.execute(f"select * from deployments_{table}")
            told += str(cursor.fetchall())
    assert "registry.example" in told
    for secret in (PASSWORD, KUBE_TOKEN, MMS.token):
        assert secret not in told


def test_a_failed_submit_stores_neither_row_nor_operation(account: HostingAccount) -> None:
    """The row and the operation are stored in one transaction."""
    registry = registry_of(account)
    manifest = manifest_of(account)
    with pytest.raises(TypeError):
        submit.create_image(account, "ann", manifest=manifest, registry=registry, description=object())  # type: ignore[arg-type]
    assert not Image.objects.exists()


def test_keys_in_urls_are_not_shown() -> None:
    urls = [
        "https://x.example/m?key=s3cret",
        "https://x.example/m?a=1&SIG=s3cret&b=2",
        "https://ann:s3cret@x.example/m",
    ]
    shown = submit.redact_keys({"urls": urls, "plain": "mail ann@x.example", "n": 1})
    assert "s3cret" not in str(shown)
    assert shown["urls"][1].endswith("&b=2")
    assert shown["urls"][2] == "https://…@x.example/m"
    assert shown["plain"] == "mail ann@x.example"
