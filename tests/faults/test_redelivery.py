"""Redelivery of a message while its task still runs: the work is done once."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import cast

import pytest
import redis
from celery import current_app
from django.conf import settings

from mms.models import Operation, State
from tests.doubles.files import running_files
from tests.site import wait_until
from tests.support.mms_rows import DRIVER, image_operation

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]
# A worker of the site with the worst settings: late acknowledgment, and a visibility timeout of one second.
WORKER = """
import redis
from celery.signals import task_prerun
from django.conf import settings
from dashboard.celery import app
link = redis.Redis.from_url(settings.REDIS_URL)
task_prerun.connect(lambda **_: link.incr("times-handed-out"), weak=False)
impatient = {"visibility_timeout": 1, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}
app.conf.update(task_acks_late=True, broker_transport_options=impatient)
app.worker_main(["--quiet", "worker", "--queues", "mms", "--include", "mms.tasks", "--pool", "threads",
                 "--concurrency", "4", "--without-gossip", "--without-mingle", "--without-heartbeat"])
"""


def slow(request: BaseHTTPRequestHandler) -> None:
    """Serve a model whose download takes eight seconds."""
    request.send_response(200)
    request.send_header("Content-Length", "16")
    request.end_headers()
    for _ in range(16):
        request.wfile.write(b"x")
        time.sleep(0.5)


@pytest.fixture
def workers(live_redis: redis.Redis) -> Iterator[None]:
    """Start two workers, so that one is free for the redelivered message."""
    environment = os.environ | {
        "DATABASE_URL": f"sqlite:///{settings.DATABASES['default']['NAME']}",
        "MMS_FETCH_ALLOW_PRIVATE": "true",
    }
    command = [sys.executable, "-c", WORKER]
    nowhere = subprocess.DEVNULL
    both = [subprocess.Popen(command, cwd=ROOT, env=environment, stdout=nowhere, stderr=nowhere) for _ in range(2)]
    yield
    for process in both:
        process.kill()
        process.wait(10)


def test_a_build_that_outlasts_the_visibility_timeout_is_done_once(workers: None, live_redis: redis.Redis) -> None:
    with running_files() as files:
        files.serve("/slow", slow)
        files.put("/score.py", DRIVER.encode())
        operation = image_operation(files.url, "slow")
        current_app.send_task("mms.run_operation", args=[str(operation.pk)])
        wait_until(lambda: Operation.objects.get().state == State.SUCCEEDED, 60, "the end of the build")
    assert int(cast(bytes, live_redis.get("times-handed-out"))) > 1, "the message must have been redelivered"
    assert Operation.objects.get().attempts == 1
    assert files.asked.count("/slow") == 1
