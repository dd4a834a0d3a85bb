"""Check of uploaded schemas when a manifest is created, so that mistakes show before a build.

Only uploads to the dashboard of this site are read: other URLs may be slow, and their content can change.
"""

import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings

from mms.images.plan.spec import MAX_SCRIPT_BYTES, Asset
from mms.images.sources.fetch import FetchError, Policy, base_name, fetch
from mms.operations.builds import UPLOAD, current_url
from mms.scoring.schema import Schema, SchemaError
from mms.system import text

FETCH_SECONDS = 3.0


def find_problem(asset: Asset) -> str:
    """Return why the asset can't be used as a schema; "" if it can, isn't one, or isn't a readable upload."""
    url = current_url(asset.url)
    if not asset.is_schema or not url.startswith(settings.FILES_URL) or not UPLOAD.match(urlsplit(url).path):
        return ""
    try:
        Schema.parse(_content(url), base_name(url))
    except SchemaError as error:
        return str(error)
    except (FetchError, OSError):  # the build reports it
        return ""
    return ""


def _content(url: str) -> bytes:
    """Return the content of an upload, as UTF-8. Raises FetchError and OSError."""
    below = (f"{settings.FILES_URL}/files/",)
    with tempfile.TemporaryDirectory(prefix="schema-", dir=settings.TMP_DIR) as folder:
        path = Path(folder, "schema.json")
        fetch(url, path, Policy(MAX_SCRIPT_BYTES, allow_below=below, seconds=FETCH_SECONDS))
        text.convert_to_utf8(path)
        return path.read_bytes()
