"""Names for failures of Redis, and a logging filter that limits what an outage writes to the log. No Django."""

import logging
import time

import redis
from kombu.exceptions import OperationalError

LOG_INTERVAL_SECONDS = 60.0  # between two log lines about Redis of one process
MAX_MESSAGE_LENGTH = 200  # characters of the original message
UNREACHABLE = "Redis can't be reached"
FULL = "Redis is full"
READ_ONLY = "Redis is a read-only replica"
NOT_SAVING = "Redis can't save to its disk and rejects writes"
LOADING = "Redis is loading its data"
REJECTED = "Redis rejects the connection"


def cause_of(error: BaseException | None) -> str:
    """Return what is wrong with Redis, without a period, or "" if `error` has another cause.

    Kombu wraps the errors of Redis, so the innermost error decides.
    """
    cause = ""
    while error is not None:
        cause = _cause(error) or cause
        error = error.__cause__ or error.__context__
    return cause


def _cause(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, redis.OutOfMemoryError) or (isinstance(error, redis.ResponseError) and "OOM" in text):
        return FULL
    if isinstance(error, redis.ReadOnlyError):
        return READ_ONLY
    if isinstance(error, redis.ResponseError) and text.startswith("MISCONF"):
        return NOT_SAVING
    if isinstance(error, redis.BusyLoadingError):
        return LOADING
    if isinstance(error, redis.AuthenticationError):
        return REJECTED
    if isinstance(error, redis.ConnectionError | redis.TimeoutError | OperationalError):
        return UNREACHABLE
    return ""


class OutageFilter(logging.Filter):
    """Let one line per LOG_INTERVAL_SECONDS about an outage of Redis pass, without a traceback.

    Celery writes a traceback at each attempt to reconnect or to send a task, several times a second.
    """

    # Records of Celery and Kombu about reconnecting, some of which have the exception only as text.
    CONNECTION_LOGGERS = ("celery.worker.consumer", "celery.beat", "kombu", "celery.utils.functional")
    CONNECTION_TEXTS = ("Connection to broker", "Cannot connect to", "connection error", "Connection error", "broker")

    def __init__(self) -> None:
        super().__init__()
        self.passed_at = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        # A handler of Celery and one of Django can write the same record.
        if (passed := getattr(record, "outage_passed", None)) is not None:
            return bool(passed)
        cause = self._cause(record)
        if cause is None:
            return True
        now = time.monotonic()
        passes = now - self.passed_at >= LOG_INTERVAL_SECONDS
        vars(record)["outage_passed"] = passes
        if not passes:
            return False
        self.passed_at = now
        original = " ".join(record.getMessage().split())[:MAX_MESSAGE_LENGTH]
        record.msg = f"{cause or UNREACHABLE}. Work continues when it is available. ({original})"
        record.args = ()
        record.exc_info = record.exc_text = record.stack_info = None
        return True

    def add_to(self, logger: logging.Logger) -> None:
        """Filter what the handlers of the logger write."""
        for handler in logger.handlers:
            handler.addFilter(self)

    def _cause(self, record: logging.LogRecord) -> str | None:
        """Return the cause that the record reports, "" if it names none, or None if it isn't about an outage."""
        errors = [record.exc_info[1]] if record.exc_info else []
        if isinstance(record.args, tuple):
            errors += [value for value in record.args if isinstance(value, BaseException)]
        for error in errors:
            if cause := cause_of(error):
                return cause
        if record.name.startswith(self.CONNECTION_LOGGERS) and any(
            text in record.getMessage() for text in self.CONNECTION_TEXTS
        ):
            return ""
        return None
