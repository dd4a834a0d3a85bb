"""Fields and forms for secrets, which are never shown after they were entered."""

from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from dashboard.forms.fields.model_form import ModelForm
from deployments.models.account import WithSecret
from encryption.fields import is_undecryptable, readable

MAX_SECRET_CHARS = 10_000


class SecretTextarea(forms.Textarea):
    """A text area that never shows its value."""

    def format_value(self, value: Any) -> None:
        """Render without the submitted value."""
        return


class SecretField(forms.CharField):
    """A password or token on one line. If it is empty, the stored one stays in use."""

    def __init__(self, **options: Any) -> None:
        attributes = {"autocomplete": "new-password", "spellcheck": "false"}
        options.setdefault("widget", forms.PasswordInput(attrs=attributes))
        options.setdefault("max_length", MAX_SECRET_CHARS)
        super().__init__(required=False, **options)


class SettingsForm(ModelForm):
    """A form for a row with one secret.

    With an empty field, the stored secret stays in use, unless its destination changes. Otherwise, a user could read a
    secret by having it sent to a server of their own.
    """

    credential_field: str = ""  # of form and row; a form may choose it by the submitted values

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.is_new = self.instance.pk is None
        self.destination_before = None if self.is_new else self.destination_of(self.instance)
        self.has_unreadable_secret = not self.is_new and is_undecryptable(self.instance, self.credential_field)
        self.has_stored_secret = not self.is_new and bool(readable(self.instance, self.credential_field))
        if not self.has_stored_secret and not self.has_unreadable_secret:
            self.fields.pop("forget", None)

    def destination_of(self, row: Any) -> Any:
        """Return a value that identifies where the row's secret is sent; equal for the same destination."""
        raise NotImplementedError

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]  # the stubs leave it out
        if not self.errors:
            self.apply_secret()

    def apply_secret(self) -> None:
        """Set the secret of the row from the submitted values, or add an error."""
        typed = self.cleaned_data.get(self.credential_field, "")
        forget = bool(self.cleaned_data.get("forget"))
        if typed and forget:
            self.add_error(self.credential_field, "Enter a new value or remove the saved one, not both.")
        elif typed:
            setattr(self.instance, self.credential_field, typed)
        elif forget:
            setattr(self.instance, self.credential_field, None)
        elif self.has_unreadable_secret:
            label = str(self.fields[self.credential_field].label).lower()
            self.add_error(
                self.credential_field,
                f"The saved {label} can’t be decrypted with this site’s secret key. Enter it again.",
            )
        elif self.has_stored_secret and self.destination_of(self.instance) != self.destination_before:
            label = str(self.fields[self.credential_field].label).lower()
            self.add_error(
                self.credential_field,
                f"Enter the {label} again. The saved one was entered for a different host and is never sent elsewhere.",
            )

    @property
    def has_submitted_secret(self) -> bool:
        """True if a secret was submitted, which the page doesn't show again."""
        return bool(self.data.get(self.credential_field))

    @property
    def secret_changes(self) -> str:
        """The change in the audit log: "changed", "forgotten" or ""."""
        if self.cleaned_data.get(self.credential_field):
            return "changed"
        return "forgotten" if self.cleaned_data.get("forget") else ""

    def changes(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the old and the new values of the fields that a valid form changes, without secrets."""
        plain = [name for name in self.changed_data if name in (self._meta.fields or ())]
        before = {} if self.is_new else {name: self.initial.get(name) for name in plain}
        after = {name: getattr(self.instance, name) for name in plain}
        return before, after | ({self.credential_field: self.secret_changes} if self.secret_changes else {})

    def save_by(self, by: str) -> WithSecret:
        """Store the row of a valid form for the user named `by`."""
        row: WithSecret = self.instance
        if self.secret_changes:
            row.record_secret_change(by)
        row.save()
        return row


def check_unique_name(form: SettingsForm, noun: str) -> None:
    """Raise ValidationError if another row of the form's account has the name."""
    others = type(form.instance).objects.filter(account=form.instance.account, name=form.cleaned_data["name"])
    if others.exclude(pk=form.instance.pk).exists():
        raise ValidationError(f"A {noun} with this name already exists.")
