"""Credentials in URLs are recognized however they are written."""

import pytest

from netguard.urls import has_credentials


@pytest.mark.parametrize(
    "url",
    [
        "https://user:secret@host/m.pkl",
        "https://user@host/m.pkl",
        "https://user@host",
        "https://user:@host?x",
        "https://:secret@host#x",
        "https://@host/",
        "HTTPS://User:Secret@Host/",
        "https://user%3Asecret%40host/m.pkl",
        "https://user:sec\\ret@host/",
        "https://user:secret\uff20host/",
        "http://a@b@c/",
        "http://user:secret@[::1]:8000/",
        "//user@host/",
    ],
)
def test_credentials_are_found(url: str) -> None:
    assert has_credentials(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://host/@scope/m.pkl",
        "https://host/m.pkl?who=user@host",
        "https://host/m.pkl#user@host",
        "https://host:8000/user%40host",
        "http://[::1]:8000/",
        "https://host",
        "",
    ],
)
def test_other_at_signs_are_allowed(url: str) -> None:
    assert not has_credentials(url)
