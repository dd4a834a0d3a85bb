"""The command that does what a form does: a call of the JSON API, for curl and in Python, without anything secret.

The token is `$DASHBOARD_TOKEN`. What people wrote stands in quotes of the shell or of Python, so none of it is run.
"""

import json
import re
import shlex
from dataclasses import dataclass
from pprint import pformat
from typing import Any

from django.conf import settings
from django.urls import reverse

from dashboard.files import is_file_url
from dashboard.forms.asset import AddAssetForm
from dashboard.forms.operation import OperationForm
from deployments.models import Cluster, HostingAccount, Operation, RegistryInfo
from deployments.operations import without_keys
from deployments.wanted import body_of

NAMED = {"registry": RegistryInfo, "cluster": Cluster}
TO_COME = "…"  # where the upload's answer goes
ONE_LINE = 90  # characters of JSON
LOGIN = re.compile(r"://[^/\s@]+@")
PYTHON = """import os
import requests

answer = requests.post(
    {url!r},
    headers={{"Authorization": f"Bearer {{os.environ['DASHBOARD_TOKEN']}}"}},
    json={body},
    timeout=60,
)
print(answer.json())
answer.raise_for_status()"""


@dataclass(frozen=True)
class Command:
    """The same call, written for a shell and in Python; `upload` is what comes before it where a file is needed."""

    curl: str
    python: str
    upload: str = ""


def of_form(form: OperationForm) -> Command:
    """From a valid form."""
    body = body_of(form.arguments())
    return _of_operation(form.account, form.kind, body, str(form.data.get("file") or ""))


def of_operation(operation: Operation) -> Command:
    """What was asked for, to be asked for again."""
    return _of_operation(operation.account, operation.kind, operation.body, "")


def of_deletion(account: HostingAccount, service_id: int) -> Command:
    return _of_operation(account, "delete_service", {"service": service_id}, "")


def of_asset(form: AddAssetForm) -> Command:
    """From a valid form."""
    known = {name: form.cleaned_data[name] for name in ("name", "url", "mime_type", "unpack")}
    return _command(form.account, "v1_list_assets", _fields(form.account, known, str(form.data.get("file") or "")))


def _of_operation(account: HostingAccount, kind: str, body: dict[str, Any], file: str) -> Command:
    return _command(account, "v1_list_operations", {"kind": kind, **_fields(account, body, file)})


def _fields(account: HostingAccount, body: dict[str, Any], file: str) -> dict[str, Any]:
    """The fields as the API takes them. `file` stands for the uploaded file; its address opens it, and is left out."""
    fields = {name: value for name, value in body.items() if value not in (None, "", False, [])}
    if is_file_url(str(fields.get("url", ""))):
        del fields["url"]
        fields["file"] = file or TO_COME
    if fields.get("assets") and "driver" in body:
        fields.setdefault("driver", "none")
    for name, rows in NAMED.items():
        if name in fields:
            names = rows.objects.filter(account=account, pk=fields[name])  # type: ignore[attr-defined]
            fields[name] = names.values_list("name", flat=True).first() or fields[name]
    return {name: _without_login(without_keys(value)) for name, value in fields.items()}


def _without_login(value: Any) -> Any:
    return LOGIN.sub(f"://{TO_COME}@", value) if isinstance(value, str) else value


def _command(account: HostingAccount, route: str, fields: dict[str, Any]) -> Command:
    url = settings.SITE_URL + reverse(route, args=[account.name])
    curl = f"{_curl(url)} \\\n  -H 'Content-Type: application/json' \\\n  --data {shlex.quote(_json(fields))}"
    body = pformat(fields, width=84, sort_dicts=False).replace("\n", "\n         ")
    upload = ""
    if fields.get("file") == TO_COME:
        place = f"{settings.SITE_URL}/uploads/?account={account.name}"
        upload = f"{_curl(place)} \\\n  -F file=@model.bin"
    return Command(curl, PYTHON.format(url=url, body=body), upload)


def _curl(url: str) -> str:
    return f'curl -sS -X POST {shlex.quote(url)} \\\n  -H "Authorization: Bearer $DASHBOARD_TOKEN"'


def _json(fields: dict[str, Any]) -> str:
    """Readable, but for letters that would make a line look like another: these are escaped."""
    plain = json.dumps(fields, ensure_ascii=False)
    escaped = not plain.isprintable()
    if len(plain) <= ONE_LINE:
        return json.dumps(fields, ensure_ascii=escaped)
    return json.dumps(fields, ensure_ascii=escaped, indent=2)
