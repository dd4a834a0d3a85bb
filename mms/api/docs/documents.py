"""What describes the API, open to all: the OpenAPI document and a page made from it."""

from base64 import b64encode
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from django.template import Context, Engine
from pydantic_core import to_json

from mms.api.docs.openapi import document
from mms.api.http import Response

FOLDER = Path(__file__).parent / "pages"


def find_document(method: str, path: str) -> Response | None:
    """The answer where `path` is one of the documents."""
    page = PAGES.get(path.removesuffix("/"))
    return page() if page and method in {"GET", "HEAD"} else None


@lru_cache(1)
def _openapi() -> Response:
    return Response(raw=to_json(document(), indent=1), headers={"cache-control": "max-age=300"})


@lru_cache(1)
def _page() -> Response:
    """The same for people: one page without scripts, its style allowed by hash."""
    style = (FOLDER / "docs.css").read_text()
    template = Engine(dirs=[str(FOLDER)]).get_template("docs.html")
    html = template.render(Context({"style": style, "info": document()["info"], "groups": _groups()}))
    digest = b64encode(sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; frame-ancestors 'none'"
    headers = {"content-type": "text/html; charset=utf-8", "content-security-policy": policy}
    return Response(raw=html.encode(), headers=headers)


def _groups() -> list[dict[str, Any]]:
    """The operations by noun, with their fields, as the page shows them."""
    whole = document()
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, item in whole["paths"].items():
        for method, operation in item.items():
            if method == "parameters":
                continue
            groups.setdefault(operation["tags"][0], []).append(_operation(whole, method, path, operation))
    return [{"noun": noun, "operations": operations} for noun, operations in groups.items()]


def _operation(whole: dict[str, Any], method: str, path: str, operation: dict[str, Any]) -> dict[str, Any]:
    status, answer = next(iter(operation["responses"].items()))
    sent, got = _schema(operation.get("requestBody", {})), _schema(answer)
    return {
        "id": operation["operationId"],
        "method": method.upper(),
        "path": path.split("{hostingAccount}")[-1],
        "summary": operation["summary"],
        "extension": operation["x-extension"],
        "query": [item for item in operation["parameters"] if item["in"] == "query" and item["name"] != "api-version"],
        "status": status,
        "answer": answer["description"],
        "sent": _fields(whole, sent),
        "got": _fields(whole, got),
    }


def _schema(part: dict[str, Any]) -> dict[str, Any] | None:
    """The schema of a request's or an answer's body, if it has one."""
    contents: list[dict[str, Any]] = list(part.get("content", {}).values())
    return contents[0]["schema"] if contents else None


def _fields(whole: dict[str, Any], schema: dict[str, Any] | None, prefix: str = "") -> list[dict[str, Any]]:
    """One line per field of a schema, nested ones with their path: targetRuntime.runtimeType."""
    target = _resolved(whole, schema or {})
    lines: list[dict[str, Any]] = []
    for name, inner in target.get("properties", {}).items():
        nested = _resolved(whole, inner)
        lines.append({"name": prefix + name, "required": name in target.get("required", []), "type": _type(nested)})
        lines += _fields(whole, nested if nested.get("properties") else None, f"{prefix}{name}.")
        items = _resolved(whole, nested.get("items", {}))
        lines += _fields(whole, items if items.get("properties") else None, f"{prefix}{name}[].")
    if target.get("type") == "array":
        lines += _fields(whole, target["items"], "[].")
    return lines


def _resolved(whole: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if options := [option for option in schema.get("anyOf", []) if option.get("type") != "null"]:
        schema = schema | options[0]
    if reference := schema.get("$ref"):
        return whole["components"]["schemas"][reference.rsplit("/", 1)[1]]
    return schema


def _type(schema: dict[str, Any]) -> str:
    kind = schema.get("format") or schema.get("type", "")
    if "maxLength" in schema:
        return f"{kind}, at most {schema['maxLength']} characters"
    return str(kind)


PAGES = {"/api/openapi.json": _openapi, "/api/docs": _page, "/api": _page}
