"""URLs that users enter and the site stores."""

import re
import unicodedata
from urllib.parse import unquote

CREDENTIALS_MESSAGE = "must not contain a user name or password before the host. They would be stored as plain text."


def has_credentials(url: str) -> bool:
    """Return True if the part of the URL before its path has a user name or password, however it is written."""
    _, _, rest = url.partition("//")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    return "@" in unicodedata.normalize("NFKC", unquote(authority))
