"""Outages of Redis: the cause by name, and one log line a minute."""

import logging

import pytest
import redis as redis_client
from kombu.exceptions import OperationalError

from deployments.live import outage, redis
from deployments.live.outage import OutageFilter, cause_of
from tests.support.lifecycle import present


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (redis_client.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), "Redis is full"),
        (redis_client.ConnectionError("Error 111 connecting to unix socket"), "Redis can't be reached"),
        (redis_client.TimeoutError("Timeout reading from socket"), "Redis can't be reached"),
        (redis_client.ReadOnlyError("You can't write against a read only replica."), "Redis is a read-only replica"),
        (
            redis_client.ResponseError("MISCONF Errors writing to the AOF file"),
            "Redis can't save to its disk and rejects writes",
        ),
        (redis_client.BusyLoadingError("Redis is loading the dataset in memory"), "Redis is loading its data"),
        (redis_client.AuthenticationError("invalid username-password pair"), "Redis rejects the connection"),
        (ValueError("something else"), ""),
        (None, ""),
    ],
)
def test_the_cause_is_named(error: BaseException | None, cause: str) -> None:
    assert cause_of(error) == cause


def test_the_cause_below_an_error_of_kombu_is_named() -> None:
    wrapped = OperationalError("OOM")
    wrapped.__cause__ = redis_client.OutOfMemoryError("OOM")
    assert cause_of(wrapped) == outage.FULL
    assert cause_of(OperationalError("Connection refused")) == outage.UNREACHABLE


def record(name: str, message: str, *arguments: object, error: BaseException | None = None) -> logging.LogRecord:
    info = (type(error), error, None) if error else None
    return logging.LogRecord(name, logging.ERROR, __file__, 1, message, arguments, info)


def test_an_outage_is_logged_once_a_minute_and_without_a_trace() -> None:
    log_filter = OutageFilter()
    lost = redis_client.ConnectionError("Connection closed\nby server.")
    first = record("celery.beat", "Message Error: %s\n%s", lost, ["  File beat.py"] * 20, error=lost)
    assert log_filter.filter(first)
    assert first.exc_info is None
    assert first.getMessage().startswith("Redis can't be reached. Work continues when it is available. (Message Error:")
    assert "\n" not in first.getMessage()
    assert len(first.getMessage()) < 300
    for number in range(100):
        assert not log_filter.filter(record("celery.worker.consumer.consumer", "consumer: %d %r", number, lost))
    assert not log_filter.filter(record("celery.worker.consumer.consumer", "consumer: Connection to broker lost."))
    log_filter.passed_at -= outage.LOG_INTERVAL_SECONDS
    assert log_filter.filter(record("deployments.live.redis", "Pages poll: %s", lost))


def test_other_messages_are_logged_as_they_are() -> None:
    log_filter = OutageFilter()
    for _ in range(3):
        other = record("celery.app.trace", "Task %s failed.", "a", error=ValueError("x"))
        assert log_filter.filter(other)
        assert other.exc_info
        assert other.getMessage() == "Task a failed."


def test_a_full_redis_is_an_outage_although_it_can_be_read(live_redis: redis_client.Redis) -> None:
    redis.reset_outage()
    assert redis.outage() == ""
    limit = live_redis.config_get("maxmemory")["maxmemory"]
    live_redis.config_set("maxmemory", "1")
    try:
        redis.reset_outage()
        assert redis.outage() == "Redis is full"
        assert redis.outage() == "Redis is full"
    finally:
        live_redis.config_set("maxmemory", present(limit))
    redis.reset_outage()
    assert redis.outage() == ""
