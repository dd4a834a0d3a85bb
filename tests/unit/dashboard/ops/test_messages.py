"""Workers drop messages that they can't read, and continue with the next one."""

import base64
import json
import logging
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import redis
from kombu.connection import Connection
from kombu.transport import redis as transport

from dashboard.celery import app
from dashboard.ops.supervisor import messages

QUEUE = "celery"


def sent(**changes: Any) -> dict[str, Any]:
    """Return a message as Celery sends it, with changes to its parts."""
    message: dict[str, Any] = {
        "body": encoded([["x"], {}, {}]),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": "tests.answer", "id": str(uuid.uuid4())},
        "properties": {
            "correlation_id": str(uuid.uuid4()),
            "delivery_info": {"exchange": "", "routing_key": QUEUE},
            "delivery_tag": str(uuid.uuid4()),
            "body_encoding": "base64",
            "priority": 0,
        },
    }
    return message | changes


def encoded(value: Any) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


UNREADABLE: dict[str, bytes | dict[str, Any] | list[Any] | int | None] = {
    "not text": b"\xff\xfe\x00",
    "not JSON": b"this isn't JSON",
    "empty": b"",
    "a list": [1, 2],
    "null": None,
    "a number": 7,
    "an empty object": {},
    "no properties": sent(properties=None),
    "no delivery tag": sent(properties={"delivery_info": {}}),
    "a delivery tag of another type": sent(properties={"delivery_tag": {}, "delivery_info": {}}),
    "no delivery information": sent(properties={"delivery_tag": "1", "delivery_info": None}),
    "no headers": sent(headers=None),
    "headers as text": sent(headers="task"),
    "no task": sent(headers={"id": "1"}),
    "a task of another type": sent(headers={"task": ["a"], "id": "1"}),
    "no task ID": sent(headers={"task": "tests.answer"}),
    "another content type": sent(**{"content-type": "application/x-python-serialize"}),
    "no content type": sent(**{"content-type": None}),
    "a body that isn't base64": sent(body="%%%"),
    "a body of another type": sent(body=5),
    "a body that isn't text": sent(body=base64.b64encode(b"\xff").decode()),
    "a body that isn't JSON": sent(body=base64.b64encode(b"{no").decode()),
    "a deeply nested body": sent(body=base64.b64encode(b"[" * 100_000).decode()),
    "arguments of another type": sent(body=encoded({"a": 1})),
    "too few arguments": sent(body=encoded([[1]])),
}


@pytest.fixture
def consume(live_redis: redis.Redis, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], list[str]]:
    """Return a function that delivers everything in the queue and returns the names of the tasks."""
    monkeypatch.setattr(transport.Transport, "Channel", transport.Transport.Channel)
    messages.install(settings.REDIS_URL)
    messages.TolerantChannel.dropped.logged_at = 0.0

    def run(on_message: Any = None) -> list[str]:
        received: list[str] = []

        def note(message: Any) -> None:
            if on_message:
                on_message(message)
            received.append(message.headers["task"])
            message.ack()

        with Connection(settings.CELERY_BROKER_URL) as connection:  # type: ignore[no-untyped-call]
            queues = [app.amqp.queues[QUEUE]]
            with app.amqp.TaskConsumer(connection.channel(), queues=queues, on_message=note):
                while live_redis.llen(QUEUE):
                    connection.drain_events(timeout=30)
        return received

    return run


@pytest.mark.parametrize("kind", UNREADABLE)
def test_an_unreadable_message_is_dropped_and_the_next_one_delivered(
    live_redis: redis.Redis, consume: Any, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    message = UNREADABLE[kind]
    live_redis.lpush(QUEUE, message if isinstance(message, bytes) else json.dumps(message), json.dumps(sent()))
    assert consume() == ["tests.answer"]
    assert live_redis.get(messages.dropped_key(QUEUE)) == b"1"
    assert live_redis.hlen("unacked") == 0
    assert f"dropped from queue {QUEUE}: 1" in caplog.text


def test_a_message_that_the_worker_fails_to_process_is_dropped(live_redis: redis.Redis, consume: Any) -> None:
    def fail(message: Any) -> None:
        if message.headers["task"] == "tests.fail":
            raise TypeError("a bytes-like object is required")

    live_redis.lpush(QUEUE, json.dumps(sent(headers={"task": "tests.fail", "id": "1"})), json.dumps(sent()))
    assert consume(fail) == ["tests.answer"]
    assert live_redis.hlen("unacked") == 0
    assert live_redis.get(messages.dropped_key(QUEUE)) == b"1"


def test_many_unreadable_messages_write_one_log_line(
    live_redis: redis.Redis, consume: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(50):
        live_redis.lpush(QUEUE, b"junk")
    with caplog.at_level(logging.INFO):
        assert consume() == []
    assert caplog.text.count("dropped") == 1
    assert live_redis.get(messages.dropped_key(QUEUE)) == b"50"
