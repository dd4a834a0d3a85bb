"""Public documentation of the API: the OpenAPI document, and an HTML page made from it."""

from base64 import b64encode
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from django.conf import settings
from django.template import Context, Engine
from pydantic_core import to_json

from mms.api.docs.openapi import document
from mms.api.http import Response

PAGES_DIR = Path(__file__).parent / "pages"


def find_document(method: str, path: str) -> Response | None:
    """Return the response if `path` is one of the documents, else None."""
    page = PAGES.get(path.removesuffix("/"))
    return page() if page and method in {"GET", "HEAD"} else None


@lru_cache(1)
def _openapi() -> Response:
    return Response(raw=to_json(document(), indent=1), headers={"cache-control": "max-age=300"})


@lru_cache(1)
def _page() -> Response:
    """Return the HTML page. It has no scripts, and its style sheet is allowed by hash."""
    style = (PAGES_DIR / "docs.css").read_text()
    template = Engine(dirs=[str(PAGES_DIR)]).get_template("docs.html")
    html = template.render(
        Context({"style": style, "site_path": settings.SITE_PATH, "info": document()["info"], "groups": _groups()})
    )
    digest = b64encode(sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; frame-ancestors 'none'"
    headers = {"content-type": "text/html; charset=utf-8", "content-security-policy": policy}
    return Response(raw=html.encode(), headers=headers)


def _groups() -> list[dict[str, Any]]:
    """Return the operations by noun, with their fields, for the page."""
    openapi = document()
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, item in openapi["paths"].items():
        for method, operation in item.items():
            if method == "parameters":
                continue
            groups.setdefault(operation["tags"][0], []).append(_operation(openapi, method, path, operation))
    return [{"noun": noun, "operations": operations} for noun, operations in groups.items()]


def _operation(openapi: dict[str, Any], method: str, path: str, operation: dict[str, Any]) -> dict[str, Any]:
    status, response = next(iter(operation["responses"].items()))
    sent, got = _schema(operation.get("requestBody", {})), _schema(response)
    return {
        "id": operation["operationId"],
        "method": method.upper(),
        "path": path.split("{hostingAccount}")[-1],
        "summary": operation["summary"],
        "extension": operation["x-extension"],
        "query": [item for item in operation["parameters"] if item["in"] == "query" and item["name"] != "api-version"],
        "status": status,
        "response": response["description"],
        "sent": _fields(openapi, sent),
        "got": _fields(openapi, got),
    }


def _schema(part: dict[str, Any]) -> dict[str, Any] | None:
    """Return the schema of a request or response body; None if there is no body."""
    contents: list[dict[str, Any]] = list(part.get("content", {}).values())
    return contents[0]["schema"] if contents else None


def _fields(openapi: dict[str, Any], schema: dict[str, Any] | None, prefix: str = "") -> list[dict[str, Any]]:
    """Return a line for each field of a schema; nested fields have a path such as targetRuntime.runtimeType."""
    target = _resolve(openapi, schema or {})
    lines: list[dict[str, Any]] = []
    for name, inner in target.get("properties", {}).items():
        nested = _resolve(openapi, inner)
        lines.append({"name": prefix + name, "required": name in target.get("required", []), "type": _type(nested)})
        lines += _fields(openapi, nested if nested.get("properties") else None, f"{prefix}{name}.")
        items = _resolve(openapi, nested.get("items", {}))
        lines += _fields(openapi, items if items.get("properties") else None, f"{prefix}{name}[].")
    if target.get("type") == "array":
        lines += _fields(openapi, target["items"], "[].")
    return lines


def _resolve(openapi: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if options := [option for option in schema.get("anyOf", []) if option.get("type") != "null"]:
        schema = schema | options[0]
    if reference := schema.get("$ref"):
        target: dict[str, Any] = openapi["components"]["schemas"][reference.rsplit("/", 1)[1]]
        return target
    return schema


def _type(schema: dict[str, Any]) -> str:
    kind = schema.get("format") or schema.get("type", "")
    if "maxLength" in schema:
        return f"{kind}, at most {schema['maxLength']} characters"
    return str(kind)


PAGES = {"/api/openapi.json": _openapi, "/api/docs": _page, "/api": _page}
