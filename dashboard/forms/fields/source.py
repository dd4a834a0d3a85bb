"""Where a model or an asset comes from: a web address, or a file that was uploaded here before."""

import mimetypes
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from django import forms

from dashboard.files import store
from dashboard.forms.fields.text import MimeTypeField, check_web_address

# Why an upload failed, where the answer had to be a redirect back to the form (a browser without JavaScript).
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
    """The MIME type of a file called `name`; application/octet-stream when its name does not tell."""
    kind, encoding = mimetypes.guess_type(name)
    return kind if kind and not encoding else "application/octet-stream"


def is_archive(name: str) -> bool:
    return name.lower().endswith(ARCHIVES)


class SourceForm(forms.Form):
    """`file` (what the upload answered) or `url`, exactly one of them; cleaned_data["url"] is the address to send."""

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
        """The uploaded file this form holds, if it does."""
        token = str(self["file"].value() or "")
        return store.find_stored(token) if token else None

    @property
    def file_name(self) -> str:
        """The name of what is registered, for guesses: the uploaded file's, else the last part of the address."""
        if self.stored:
            return self.stored.name
        return urlsplit(self.cleaned_data.get("url") or "").path.rpartition("/")[2]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        self._settle_source(cleaned)
        if "mime_type" in cleaned and not cleaned["mime_type"]:
            cleaned["mime_type"] = guess_mime_type(self.file_name)
        return cleaned

    def _settle_source(self, cleaned: dict[str, Any]) -> None:
        token = cleaned.pop("file", "")
        if token and cleaned.get("url"):
            self.add_error("url", "A file is already uploaded. Clear this field or remove the file.")
        elif self.stored:
            cleaned["url"] = self.stored.url
        elif token:
            self.add_error("url", "The uploaded file no longer exists. Upload it again.")
        elif not cleaned.get("url") and "url" not in self.errors:
            self.add_error("url", "Upload a file or enter its URL.")
