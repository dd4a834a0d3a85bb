"""The command that does what a form does: a call of the JSON API, for curl and in Python, without anything secret.

The token is `$DASHBOARD_TOKEN`. What people wrote stands in quotes of the shell or of Python, so none of it is run.
"""

import json
import shlex
from dataclasses import dataclass
from pprint import pformat
from typing import Any

from django import forms
from django.conf import settings
from django.urls import reverse

from dashboard.files.store import is_file_url
from dashboard.forms.fields.secret import SecretField
from dashboard.forms.resources.asset import AddAssetForm
from dashboard.forms.resources.operation import OperationForm
from deployments.models import Cluster, HostingAccount, Operation, RegistryInfo
from deployments.operations.requests import to_body
from deployments.operations.submit import redact_keys

NAMED = {"registry": RegistryInfo, "cluster": Cluster}
# Pages with a form about something else than an operation, and the route that does the same.
ROUTES_OF_PAGES = {
    "add_account": ("POST", "v1_list_accounts"),
    "change_server": ("PATCH", "v1_get_server"),
    "add_registry": ("POST", "v1_list_registries"),
    "change_registry": ("PATCH", "v1_get_registry"),
    "add_cluster": ("POST", "v1_list_clusters"),
    "change_cluster": ("PATCH", "v1_get_cluster"),
    "list_members": ("POST", "v1_list_members"),
    "list_people": ("POST", "v1_list_people"),
}
NAMES_IN_API = {"username": "name"}
SECRET = "the secret, from the environment"  # noqa: S105 - what stands for it until it is written as Python
TO_COME = "…"  # where the upload's answer goes
ONE_LINE = 90  # characters of JSON
PYTHON = """import os
import requests

answer = requests.{verb}(
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
    body = to_body(form.arguments())
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


def of_page(page: str, arguments: dict[str, Any], form: forms.BaseForm) -> Command | None:
    """From the form of settings, members or people on the page called `page`, with the values that it shows.

    A secret stands nowhere in it: Python takes it from the environment, and for the shell it is typed into the input
    of curl, in place of “…”, for what stands in a command line is seen by everybody on the machine. None for a page
    whose form has no route.
    """
    if page not in ROUTES_OF_PAGES:
        return None
    method, route = ROUTES_OF_PAGES[page]
    url = settings.SITE_URL + reverse(route, kwargs=arguments)
    fields = _shown(form, adds=method == "POST")
    curl = f"{_curl_json(url, method)}  --data @- <<'END'\n{_json(fields)}\nEND"
    secrets = {name: SECRET for name, value in fields.items() if value == TO_COME and _is_secret(form, name)}
    python = _python(url, {**fields, **secrets}, method).replace(repr(SECRET), "os.environ['SECRET']")
    return Command(curl, python)


def _shown(form: forms.BaseForm, adds: bool) -> dict[str, Any]:
    """The fields as the API takes them; “…” for what is still to be written. What is kept needs no secret again."""
    found: dict[str, Any] = {}
    for name, field in form.fields.items():
        value = "" if _is_secret(form, name) else form[name].value()
        if isinstance(field, forms.BooleanField):
            value = bool(value)
        elif isinstance(field, forms.ChoiceField) and value in (None, ""):
            value = next(iter(form[name].subwidgets)).data["value"]  # as the page has it chosen
        if value in (None, "") and (field.required or _is_secret(form, name)) and adds:
            value = TO_COME
        if value not in (None, "", False):
            found[NAMES_IN_API.get(name, name)] = redact_keys(value if isinstance(value, bool) else str(value))
    return found


def _is_secret(form: forms.BaseForm, name: str) -> bool:
    return isinstance(form.fields.get(name), SecretField)


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
    return {name: redact_keys(value) for name, value in fields.items()}


def _command(account: HostingAccount, route: str, fields: dict[str, Any]) -> Command:
    url = settings.SITE_URL + reverse(route, args=[account.name])
    curl = f"{_curl_json(url)}  --data {shlex.quote(_json(fields))}"
    upload = ""
    if fields.get("file") == TO_COME:
        place = f"{settings.SITE_URL}/uploads/?account={account.name}"
        upload = f"{_curl(place)} \\\n  -F file=@model.bin"
    return Command(curl, _python(url, fields), upload)


def _curl(url: str, method: str = "POST") -> str:
    return f'curl -sS -X {method} {shlex.quote(url)} \\\n  -H "Authorization: Bearer $DASHBOARD_TOKEN"'


def _curl_json(url: str, method: str = "POST") -> str:
    return f"{_curl(url, method)} \\\n  -H 'Content-Type: application/json' \\\n"


def _python(url: str, fields: dict[str, Any], method: str = "POST") -> str:
    body = pformat(fields, width=84, sort_dicts=False).replace("\n", "\n         ")
    return PYTHON.format(verb=method.lower(), url=url, body=body)


def _json(fields: dict[str, Any]) -> str:
    """Readable, but for letters that would make a line look like another: these are escaped."""
    plain = json.dumps(fields, ensure_ascii=False)
    escaped = not plain.isprintable()
    if len(plain) <= ONE_LINE:
        return json.dumps(fields, ensure_ascii=escaped)
    return json.dumps(fields, ensure_ascii=escaped, indent=2)
