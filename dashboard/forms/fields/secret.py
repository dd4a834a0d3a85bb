"""Fields for secrets: written, and never shown again."""

from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from deployments.models.account import WithSecret

SECRET_MAX = 10_000  # characters


class SecretText(forms.Textarea):
    """A text area that comes back empty, whatever was typed into it."""

    def format_value(self, value: Any) -> None:
        return None


class SecretField(forms.CharField):
    """A password or a token on one line. Left empty it means: the one that is kept."""

    def __init__(self, **options: Any) -> None:
        attributes = {"autocomplete": "new-password", "spellcheck": "false"}
        options.setdefault("widget", forms.PasswordInput(attrs=attributes))
        options.setdefault("max_length", SECRET_MAX)
        super().__init__(required=False, **options)


class SettingsForm(forms.ModelForm):
    """A form about a row with one secret.

    An empty secret keeps the old one, as long as it would go to the same place: who may change where a secret is sent
    must not get to see it that way.
    """

    sealed: str = ""  # the field of form and row that is secret; a form may choose it by what was typed

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.adds = self.instance.pk is None
        self.place_before = None if self.adds else self.place_of(self.instance)
        self.kept_before = not self.adds and bool(getattr(self.instance, self.sealed))
        if not self.kept_before:
            self.fields.pop("forget", None)

    def place_of(self, row: Any) -> Any:
        """Where the secret of the row is sent; equal for the same place."""
        raise NotImplementedError

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        if not self.errors:
            self.settle_secret()

    def settle_secret(self) -> None:
        """Put the secret that holds from now on into the row, or say why there is none."""
        typed = self.cleaned_data.get(self.sealed, "")
        forget = bool(self.cleaned_data.get("forget"))
        if typed and forget:
            self.add_error(self.sealed, "Enter a new value or remove the saved one, not both.")
        elif typed:
            setattr(self.instance, self.sealed, typed)
        elif forget:
            setattr(self.instance, self.sealed, None)
        elif self.kept_before and self.place_of(self.instance) != self.place_before:
            label = str(self.fields[self.sealed].label).lower()
            self.add_error(
                self.sealed,
                f"Enter the {label} again. The saved one was entered for a different host and is never sent elsewhere.",
            )

    @property
    def tried_secret(self) -> bool:
        """Whether a secret was typed that the page does not show again."""
        return bool(self.data.get(self.sealed))

    @property
    def secret_changes(self) -> str:
        """ "changed", "forgotten" or "", for a valid form."""
        if self.cleaned_data.get(self.sealed):
            return "changed"
        return "forgotten" if self.cleaned_data.get("forget") else ""

    def changes(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Before and after, by field, of what a valid form changes; without anything secret."""
        plain = [name for name in self.changed_data if name in (self._meta.fields or ())]
        before = {} if self.adds else {name: self.initial.get(name) for name in plain}
        after = {name: getattr(self.instance, name) for name in plain}
        return before, after | ({self.sealed: self.secret_changes} if self.secret_changes else {})

    def save_by(self, by: str) -> WithSecret:
        """Store the row of a valid form; `by`: who does it."""
        row: WithSecret = self.instance
        if self.secret_changes:
            row.record_secret_change(by)
        row.save()
        return row


def check_unique_name(form: SettingsForm, noun: str) -> None:
    """Raise ValidationError where another row of the form's account has the name."""
    others = type(form.instance).objects.filter(account=form.instance.account, name=form.cleaned_data["name"])
    if others.exclude(pk=form.instance.pk).exists():
        raise ValidationError(f"A {noun} with this name already exists.")
