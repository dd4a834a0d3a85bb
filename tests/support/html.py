"""Compare pages by what a browser shows: line breaks in the source don't count."""

import re


def compact(html: str) -> str:
    """Return the HTML with each run of whitespace as one space, and without the ones between two tags."""
    return re.sub(r"> <", "><", re.sub(r"\s+", " ", html)).strip()
