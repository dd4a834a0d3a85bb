"""The source of a model or an asset: a URL or a previously uploaded file."""

import mimetypes
from functools import cached_property
from typing import Any
from urllib.parse import unquote, urlsplit

from django import forms

from dashboard.files import store
from dashboard.forms.fields.text import MimeTypeField, check_web_address

# Reasons for a failed upload, by the code in the redirect back to the form (for browsers without JavaScript).
UPLOAD_ERRORS = {
    "too_large": "The file is larger than this site accepts.",
    "empty": "The file is empty.",
    "no_file": "Choose a file, then upload it.",
    "no_space": "The site has no space left for this file. Contact an administrator.",
}
UPLOAD_FAILED = "The file couldn’t be stored. Try again. If it fails again, contact an administrator."
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
PYTHON = "text/x-python"


def guess_mime_type(name: str) -> str:
    """Return the MIME type of a file called `name`; application/octet-stream if unknown."""
    kind, encoding = mimetypes.guess_type(name)
    return kind if kind and not encoding else "application/octet-stream"


def is_archive(name: str) -> bool:
    """Return True if the name ends like that of an archive."""
    return name.lower().endswith(ARCHIVES)


class SourceForm(forms.Form):
    """Exactly one of `file`, the token in the response to an upload, and `url`.

    `cleaned_data["url"]` is the address to send to the server.
    """

    file = forms.CharField(required=False, widget=forms.HiddenInput)
    url = forms.CharField(
        label="Or enter its URL",
        required=False,
        max_length=2000,
        validators=[check_web_address],
        widget=forms.URLInput(attrs={"placeholder": "https://…", "autocomplete": "off", "spellcheck": "false"}),
        help_text="The server fetches the file from here when it builds an image.",
    )
    mime_type = MimeTypeField()
    unpack = forms.BooleanField(
        label="Unpack the archive",
        required=False,
        help_text="For a zip or tar archive. The driver script then finds the files in it.",
    )

    @cached_property
    def stored(self) -> store.StoredFile | None:
        """The uploaded file that `file` refers to, if it exists."""
        token = str(self["file"].value() or "")
        return store.find_stored(token) if token else None

    @property
    def file_name(self) -> str:
        """The name of the uploaded file, or the last part of the address."""
        if self.stored:
            return self.stored.name
        return unquote(urlsplit(self.cleaned_data.get("url") or "").path.rpartition("/")[2])

    def clean(self) -> dict[str, Any]:
        """Set `url` from the source, and guess a missing MIME type."""
        cleaned = super().clean() or self.cleaned_data
        self._apply_source(cleaned)
        if "mime_type" in cleaned and not cleaned["mime_type"]:
            cleaned["mime_type"] = guess_mime_type(self.file_name)
        return cleaned

    def _apply_source(self, cleaned: dict[str, Any]) -> None:
        token = cleaned.pop("file", "")
        if token and cleaned.get("url"):
            self.add_error("url", "A file is already uploaded. Clear this field or remove the file.")
        elif self.stored:
            cleaned["url"] = self.stored.url
        elif token:
            self.add_error("url", "The uploaded file no longer exists. Upload it again.")
        elif not cleaned.get("url") and "url" not in self.errors:
            self.add_error("url", "Upload a file or enter its URL.")
