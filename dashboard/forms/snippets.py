"""Snippets for curl and Python that make the same request as a form through the JSON API, without secrets.

The API token is read from `$DASHBOARD_TOKEN`. Values are quoted for the shell and for Python, so that none is executed.
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

CLASSES_BY_NAME = {"registry": RegistryInfo, "cluster": Cluster}
# The method and name of the equivalent route, for pages whose form doesn't request an operation.
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
SECRET = "the secret, from the environment"  # noqa: S105 - a placeholder, replaced by a Python expression
PLACEHOLDER = "…"  # for values that the user has to supply
MAX_LINE_CHARS = 90  # longer JSON is indented
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
class Snippet:
    """One API call for the shell and in Python. `upload`: the command that uploads the file first, if it needs one."""

    curl: str
    python: str
    upload: str = ""


def build_form_snippet(form: OperationForm) -> Snippet:
    """Return the snippet that requests the operation of a valid form."""
    body = to_body(form.arguments())
    return _operation_snippet(form.account, form.kind, body, str(form.data.get("file") or ""))


def build_operation_snippet(operation: Operation) -> Snippet:
    """Return the snippet that requests the same operation again."""
    return _operation_snippet(operation.account, operation.kind, operation.body, "")


def build_deletion_snippet(account: HostingAccount, service_id: int) -> Snippet:
    """Return the snippet that requests the deletion of a service."""
    return _operation_snippet(account, "delete_service", {"service": service_id}, "")


def build_asset_snippet(form: AddAssetForm) -> Snippet:
    """Return the snippet that adds the asset of a valid form."""
    known = {name: form.cleaned_data[name] for name in ("name", "url", "mime_type", "unpack")}
    return _snippet(form.account, "v1_list_assets", _fields(form.account, known, str(form.data.get("file") or "")))


def build_page_snippet(page: str, arguments: dict[str, Any], form: forms.BaseForm) -> Snippet | None:
    """Return the snippet for the form of settings, members or users on the page called `page`, with its values.

    Return None if the API has no such route. The snippet contains no secret: Python reads it from the environment; with
    curl, the user replaces "…" in its standard input, because all users of a machine can see command lines.
    """
    if page not in ROUTES_OF_PAGES:
        return None
    method, route = ROUTES_OF_PAGES[page]
    url = settings.SITE_ORIGIN + reverse(route, kwargs=arguments)
    fields = _field_values(form, is_new=method == "POST")
    curl = f"{_curl_json(url, method)}  --data @- <<'END'\n{_json(fields)}\nEND"
    secrets = {name: SECRET for name, value in fields.items() if value == PLACEHOLDER and _is_secret(form, name)}
    python = _python(url, {**fields, **secrets}, method).replace(repr(SECRET), "os.environ['SECRET']")
    return Snippet(curl, python)


def _field_values(form: forms.BaseForm, is_new: bool) -> dict[str, Any]:
    """Return the fields as the API accepts them, with "…" for missing values. Existing rows need no secret."""
    values: dict[str, Any] = {}
    for name, field in form.fields.items():
        value = "" if _is_secret(form, name) else form[name].value()
        if isinstance(field, forms.BooleanField):
            value = bool(value)
        elif isinstance(field, forms.ChoiceField) and value in (None, ""):
            value = next(iter(form[name].subwidgets)).data["value"]  # the option that browsers preselect
        if value in (None, "") and (field.required or _is_secret(form, name)) and is_new:
            value = PLACEHOLDER
        if value not in (None, "", False):
            values[NAMES_IN_API.get(name, name)] = redact_keys(value if isinstance(value, bool) else str(value))
    return values


def _is_secret(form: forms.BaseForm, name: str) -> bool:
    return isinstance(form.fields.get(name), SecretField)


def _operation_snippet(account: HostingAccount, kind: str, body: dict[str, Any], file: str) -> Snippet:
    return _snippet(account, "v1_list_operations", {"kind": kind, **_fields(account, body, file)})


def _fields(account: HostingAccount, body: dict[str, Any], file: str) -> dict[str, Any]:
    """Return the fields as the API accepts them.

    An uploaded file appears as `file`, because its address contains a key that gives access to it.
    """
    fields = {name: value for name, value in body.items() if value not in (None, "", False, [])}
    if is_file_url(str(fields.get("url", ""))):
        del fields["url"]
        fields["file"] = file or PLACEHOLDER
    if fields.get("assets") and "driver" in body:
        fields.setdefault("driver", "none")
    for name, rows in CLASSES_BY_NAME.items():
        if name in fields:
            names = rows.objects.filter(account=account, pk=fields[name])  # type: ignore[attr-defined]
            fields[name] = names.values_list("name", flat=True).first() or fields[name]
    return {name: redact_keys(value) for name, value in fields.items()}


def _snippet(account: HostingAccount, route: str, fields: dict[str, Any]) -> Snippet:
    url = settings.SITE_ORIGIN + reverse(route, args=[account.name])
    curl = f"{_curl_json(url)}  --data {shlex.quote(_json(fields))}"
    upload = ""
    if fields.get("file") == PLACEHOLDER:
        upload_url = f"{settings.SITE_URL}/uploads/?account={account.name}"
        upload = f"{_curl(upload_url)} \\\n  -F file=@model.bin"
    return Snippet(curl, _python(url, fields), upload)


def _curl(url: str, method: str = "POST") -> str:
    return f'curl -sS -X {method} {shlex.quote(url)} \\\n  -H "Authorization: Bearer $DASHBOARD_TOKEN"'


def _curl_json(url: str, method: str = "POST") -> str:
    return f"{_curl(url, method)} \\\n  -H 'Content-Type: application/json' \\\n"


def _python(url: str, fields: dict[str, Any], method: str = "POST") -> str:
    body = pformat(fields, width=84, sort_dicts=False).replace("\n", "\n         ")
    return PYTHON.format(verb=method.lower(), url=url, body=body)


def _json(fields: dict[str, Any]) -> str:
    """Return readable JSON. Escape characters that aren't printable, which could disguise a line as another."""
    plain = json.dumps(fields, ensure_ascii=False)
    escaped = not plain.isprintable()
    if len(plain) <= MAX_LINE_CHARS:
        return json.dumps(fields, ensure_ascii=escaped)
    return json.dumps(fields, ensure_ascii=escaped, indent=2)
