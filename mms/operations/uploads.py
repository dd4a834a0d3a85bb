"""Checks of uploaded files when a manifest is created, so that mistakes are found before a build.

Only uploads to the dashboard of this site are read: other URLs may be slow, and their content can change.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings

from mms.images.plan import requirements
from mms.images.plan.spec import MAX_SCRIPT_BYTES, Asset
from mms.images.sources.fetch import FetchError, Policy, base_name, fetch
from mms.operations.builds import UPLOAD, current_url
from mms.scoring.schema import Schema, SchemaError
from mms.system import text

FETCH_SECONDS = 3.0


def find_schema_problem(asset: Asset) -> str:
    """Return why the asset can't be used as a schema; "" if it can, isn't one, or isn't a readable upload."""
    content = _read(asset.url, MAX_SCRIPT_BYTES) if asset.is_schema else None
    if content is None:
        return ""
    try:
        Schema.parse(content, base_name(current_url(asset.url)))
    except SchemaError as error:
        return str(error)
    return ""


def find_requirements_problem(value: str, parse: Callable[[str], object]) -> str:
    """Return why `parse` rejects the uploaded file whose URL `value` is; "" if it doesn't, or for anything else."""
    content = _read(requirements.url_in(value), requirements.MAX_CHARS)
    if content is None:
        return ""
    try:
        parse(text.decode(content))
    except requirements.RequirementsError as error:
        return str(error)
    except text.UndecodableTextError as error:
        return f"the file {error}."
    return ""


def _read(url: str, max_bytes: int) -> bytes | None:
    """Return the content of an upload, as UTF-8; None if `url` isn't one, or can't be read: the build reports it."""
    url = current_url(url)
    if not url.startswith(settings.FILES_URL) or not UPLOAD.match(urlsplit(url).path):
        return None
    below = (f"{settings.FILES_URL}/files/",)
    try:
        with tempfile.TemporaryDirectory(prefix="upload-", dir=settings.TMP_DIR) as folder:
            path = Path(folder, "file")
            fetch(url, path, Policy(max_bytes, allow_below=below, seconds=FETCH_SECONDS))
            text.convert_to_utf8(path)
            return path.read_bytes()
    except (FetchError, OSError):
        return None
