"""The form that adds a user."""

from typing import Any

from django import forms
from django.contrib.auth import get_user_model

from dashboard.forms.fields.model_form import ModelForm


class AddPersonForm(ModelForm):
    """The name of a new user. They choose a password with a link that works once."""

    class Meta:
        model = get_user_model()
        fields = ("username",)
        labels = {"username": "Name"}
        help_texts = {"username": "Their username: letters, digits and @ . + - _"}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["username"].widget.attrs.update(autocomplete="off", spellcheck="false", autocapitalize="none")

    def clean_username(self) -> str:
        """Raise ValidationError if the name is in use, in upper or lower case."""
        name: str = self.cleaned_data["username"]
        if get_user_model().objects.filter(username__iexact=name).exists():
            raise forms.ValidationError("This username is already taken.")
        return name

    def save(self, commit: bool = True) -> Any:
        """Store the user without a password."""
        self.instance.set_unusable_password()
        return super().save(commit)
