"""Model versions have no gaps when several web processes register models concurrently."""

import os
import subprocess
import sys

import pytest
from django.db import connection

from mms.models import Model
from tests.support.mms_rows import account

REGISTER = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "dashboard.settings"
import django; django.setup()
from mms.api.http import Request
from mms.api.routes.models import register_model
from mms.tokens import Grant
body = b'{"name": "same", "url": "http://models.example/x"}'
request = Request(Grant(int(sys.argv[1]), "", "", ""), "", "POST", "", {}, body)
for _ in range(40):
    register_model(request)
"""


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
def test_four_processes_leave_no_gap_and_no_repeat() -> None:
    owner = account()
    environment = {**os.environ, "DATABASE_URL": f"sqlite:///{connection.settings_dict['NAME']}"}
    command = [sys.executable, "-c", REGISTER, str(owner.pk)]
    registering = [subprocess.Popen(command, env=environment) for _ in range(4)]
    assert [process.wait(60) for process in registering] == [0, 0, 0, 0]
    versions = Model.objects.filter(account=owner, name="same").values_list("version", flat=True)
    assert sorted(versions) == list(range(1, 161))
