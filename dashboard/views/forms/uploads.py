"""What the pages with an upload need: where it goes, and what came back from it."""

from typing import Any
from urllib.parse import urlencode

from django.conf import settings

from dashboard.forms.fields.source import UPLOAD_ERRORS, UPLOAD_FAILED
from dashboard.http.request import Request


def uploaded(request: Request) -> dict[str, Any]:
    """The initial value of `file` when an upload led back here."""
    return {"file": request.GET["file"]} if request.GET.get("file") else {}


def upload_context(request: Request) -> dict[str, Any]:
    """`upload_url` for the form that uploads (its answer leads back to this page), and why the last one failed."""
    code = request.GET.get("upload_error")
    query = urlencode({"account": request.account.name, "next": request.path})
    return {
        "upload_url": f"/uploads/?{query}",
        "upload_error": UPLOAD_ERRORS.get(code, UPLOAD_FAILED) if code else "",
        "upload_max_bytes": settings.UPLOAD_MAX_BYTES,
    }
