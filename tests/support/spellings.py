"""Spellings in which a server may echo a secret, written with the standard library rather than with our redaction."""

import base64
import html
import json
from urllib.parse import quote, quote_plus


def spellings(secret: str, user: str = "puller") -> dict[str, str]:
    """Return the secret in each spelling, by a description. user: for credentials in base64."""
    found = {
        "plain": secret,
        "JSON": json.dumps(secret)[1:-1],
        "JSON beyond ASCII": json.dumps(secret, ensure_ascii=False)[1:-1],
        "JSON in JSON": json.dumps(json.dumps(secret))[3:-3],
        "URL": quote(secret, safe=""),
        "form": quote_plus(secret),
        "URL twice": quote(quote(secret, safe=""), safe=""),
        "JSON in a URL": quote(json.dumps(secret)[1:-1], safe=""),
        "HTML": html.escape(secret),
        "HTML beyond ASCII": secret.encode("ascii", "xmlcharrefreplace").decode(),
        "JSON in HTML": html.escape(json.dumps(secret)[1:-1]),
        "Python": repr(secret)[1:-1],
    }
    for name, raw in {
        "base64": secret,
        "credentials": f"{user}:{secret}",
        "credentials of no one": f":{secret}",
    }.items():
        standard, url_safe = (encode(raw.encode()).decode() for encode in (base64.b64encode, base64.urlsafe_b64encode))
        found |= {name: standard, f"{name}, URL-safe": url_safe, f"{name}, unpadded": standard.rstrip("=")}
        found |= {f"{name}, URL-safe and unpadded": url_safe.rstrip("="), f"{name} in a URL": quote(standard, safe="")}
    document = json.dumps({"auths": {"r.example": {"username": user, "password": secret}}})
    return found | {"base64 of a Docker configuration": base64.b64encode(document.encode()).decode()}
