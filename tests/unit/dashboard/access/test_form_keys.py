"""A form that is submitted several times has one effect."""

import re
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from dashboard.access import form_keys
from dashboard.models import FormSubmission
from deployments.models import Image, Operation
from deployments.models.operation import State
from tests.support.people import make_cast, make_lab, make_operation

# Forms that can be repeated safely: they set a value, end something, show something, or belong to sign-in.
REPEATABLE = {
    "503.html",  # sends the fields of the failed request again, its key included
    "_shared/_person.html",
    "_shared/_seen.html",
    "_shared/_theme.html",
    "_shared/_trouble.html",
    "_shared/_upload_form.html",
    "operations/_panel.html",
    "people/change_password.html",
    "people/choose_password.html",
    "people/give_code.html",
    "people/prove.html",
    "people/set_up.html",
    "people/sign_in.html",
    "people/switch_on.html",
    "people/you.html",
    "services/_console.html",
    "services/_snippets.html",
    "tokens/list.html",
}


def test_every_form_that_creates_something_has_a_key() -> None:
    folder = Path(settings.BASE_DIR) / "templates"
    without = {
        str(path.relative_to(folder))
        for path in folder.rglob("*.html")
        if len(re.findall(r'method="post"', path.read_text())) > path.read_text().count("{% form_key %}")
    }
    assert without <= REPEATABLE


@pytest.mark.django_db(transaction=True)
def test_of_simultaneous_submissions_one_has_an_effect(live_redis: Any) -> None:
    lab = make_lab()
    client = make_cast(lab.account).scientist
    form = {"name": "fresh", "url": "https://files.example/m.bin", "form_key": "a-key"}
    locations = []

    def submit() -> None:
        locations.append(client.post(f"{lab.url}models/new/", form).headers["Location"])
        connection.close()

    threads = [threading.Thread(target=submit) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(locations) == 3
    assert len(set(locations)) == 1
    assert Operation.objects.filter(model__name="fresh").count() == 1


@pytest.mark.django_db
def test_an_operation_is_retried_once(live_redis: Any) -> None:
    lab = make_lab()
    client = make_cast(lab.account).operator
    body = {"manifest": lab.manifest.pk, "registry": lab.registry.pk, "description": ""}
    failed = make_operation(lab.image, state=State.FAILED, body=body)
    Image.objects.filter(pk=lab.image.pk).update(mms_id=None)
    path = f"{lab.url}operations/{failed.pk}/"
    before = Operation.objects.count()
    for _ in range(3):
        assert client.post(f"{path}retry/", {"form_key": "a-key"}).status_code == 302
    assert Operation.objects.count() == before + 1


@pytest.mark.django_db
def test_old_submissions_are_deleted() -> None:
    FormSubmission.objects.create(user_id=1, digest="old")
    FormSubmission.objects.update(at=timezone.now() - form_keys.RETENTION - timedelta(minutes=1))
    FormSubmission.objects.create(user_id=1, digest="new")
    assert form_keys.prune() == 1
    assert FormSubmission.objects.get().digest == "new"
