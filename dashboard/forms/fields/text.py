"""Text fields and validators that several forms share. The limits are those of the MMS API reference."""

import re
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from deployments.client.urls import web_address
from netguard.urls import has_credentials

MAX_NAME_CHARS = 32  # of models and assets
MAX_TAG_CHARS = 29
MAX_MIME_TYPE_CHARS = 200
MIME_TYPE = re.compile(r"^[\w.+-]+/[\w.+-]+$", re.ASCII)
DESCRIPTION_ROWS = 2


def list_characters(characters: set[str]) -> str:
    """Return the characters as part of a sentence: `“_”, “.” and a blank`."""
    named = ["a blank" if character.isspace() else f"“{character}”" for character in sorted(characters)]
    return " and ".join([", ".join(named[:-1]), named[-1]]) if len(named) > 1 else named[0]


def check_name(value: str) -> None:
    """Raise ValidationError unless `value` has only letters, digits and hyphens."""
    if wrong := set(re.findall(r"[^A-Za-z0-9-]", value)):
        raise ValidationError(f"Use only letters, digits and hyphens. Remove {list_characters(wrong)}.")


def check_service_name(value: str) -> None:
    """Raise ValidationError unless `value` is a letter or digit, then any of letters, digits, `-`, `_` and `.`."""
    if wrong := set(re.findall(r"[^A-Za-z0-9._-]", value)):
        raise ValidationError(
            f"Use only letters, digits, hyphens, dots and underscores. Remove {list_characters(wrong)}."
        )
    if not value[0].isalnum():
        raise ValidationError("Start with a letter or a digit.")


def check_web_address(value: str) -> None:
    """Raise ValidationError unless `value` is an http(s) URL with a host, and without a user name or password."""
    if has_credentials(value):
        raise ValidationError("Remove the user name and password from the URL. They would be stored unencrypted.")
    if web_address(value) is None or re.search(r"\s", value):
        raise ValidationError("Enter the full URL, starting with http:// or https://.")


def check_mime_type(value: str) -> None:
    """Raise ValidationError unless `value` looks like `type/subtype`."""
    if not MIME_TYPE.match(value):
        raise ValidationError("Enter a type and a subtype, such as application/octet-stream, or leave this empty.")


class NameField(forms.CharField):
    """A name of at most 32 letters, digits and hyphens."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("max_length", MAX_NAME_CHARS)
        kwargs.setdefault("help_text", f"Up to {kwargs['max_length']} letters, digits and hyphens.")
        super().__init__(validators=[check_name], **kwargs)
        self.widget.attrs.update(autocomplete="off", spellcheck="false", autocapitalize="none")


class DescriptionField(forms.CharField):
    """A short optional text in a small text area. Line breaks become spaces."""

    def __init__(self, max_length: int) -> None:
        super().__init__(
            max_length=max_length,
            required=False,
            help_text=f"Optional. At most {max_length} characters.",
            widget=forms.Textarea(attrs={"rows": DESCRIPTION_ROWS}),
        )

    def to_python(self, value: Any) -> str:
        """Return the text on one line."""
        return " ".join((super().to_python(value) or "").split())


class MimeTypeField(forms.CharField):
    """An optional MIME type. The page suggests common ones."""

    def __init__(self) -> None:
        super().__init__(
            label="MIME type",
            max_length=MAX_MIME_TYPE_CHARS,
            required=False,
            validators=[check_mime_type],
            help_text="Optional. Guessed from the file name.",
        )
        self.widget.attrs.update(list="mime-types", autocomplete="off", spellcheck="false")


class TagsField(forms.CharField):
    """Tags, separated by commas or spaces. The value is a list without duplicates."""

    def __init__(self) -> None:
        super().__init__(
            required=False,
            help_text=f"Optional. Letters and digits, at most {MAX_TAG_CHARS} per tag, separated by commas.",
        )
        self.widget.attrs.update(autocomplete="off", spellcheck="false")

    def prepare_value(self, value: Any) -> Any:
        """Join a list of tags for the widget."""
        return ", ".join(map(str, value)) if isinstance(value, list) else value

    def to_python(self, value: Any) -> list[str]:  # type: ignore[override]  # a list, where the base class has a string
        """Split the text into tags."""
        return list(dict.fromkeys(part for part in re.split(r"[,\s]+", super().to_python(value) or "") if part))

    def validate(self, value: Any) -> None:
        """Raise ValidationError for the first invalid tag."""
        for tag in value:
            if wrong := set(re.findall(r"[^A-Za-z0-9]", tag)):
                raise ValidationError(
                    f"Use only letters and digits in a tag. Remove {list_characters(wrong)} from “{tag}”."
                )
            if len(tag) > MAX_TAG_CHARS:
                raise ValidationError(f"“{tag}” has {len(tag)} characters. A tag can have at most {MAX_TAG_CHARS}.")

    def run_validators(self, value: Any) -> None:
        """Do nothing: validate() checks each tag."""
