"""Template context of forms with an upload: the upload URL, the uploaded file, and errors."""

from typing import Any
from urllib.parse import urlencode

from django.conf import settings

from dashboard.forms.fields.source import UPLOAD_ERRORS, UPLOAD_FAILED
from dashboard.http.request import Request


def initial_from_upload(request: Request) -> dict[str, Any]:
    """Return the initial value of `file` after an upload redirected back to the form."""
    return {"file": request.GET["file"]} if request.GET.get("file") else {}


def upload_context(request: Request) -> dict[str, Any]:
    """Return the address to upload to, which redirects back to this page; the last upload's error; and the limit."""
    code = request.GET.get("upload_error")
    query = urlencode({"account": request.account.name, "next": request.path})
    return {
        "upload_url": f"{settings.SITE_PATH}/uploads/?{query}",
        "upload_error": UPLOAD_ERRORS.get(code, UPLOAD_FAILED) if code else "",
        "upload_max_bytes": settings.UPLOAD_MAX_BYTES,
    }
