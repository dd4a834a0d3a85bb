"""A registry that images are pushed to."""

from typing import Any

from django import forms

from dashboard.forms.fields.secret import SecretField, SettingsForm, check_unique_name
from dashboard.forms.settings.server import PLAIN
from deployments.models import RegistryInfo
from deployments.models.validators import check_location, origin, registry_url


class RegistryForm(SettingsForm):
    sealed = "password"

    name = forms.CharField(
        max_length=64,
        widget=forms.TextInput(attrs=dict(PLAIN)),
        help_text="The name people see when choosing a registry.",
    )
    location = forms.CharField(
        max_length=400,
        validators=[check_location],
        widget=forms.TextInput(attrs={**PLAIN, "placeholder": "example.azurecr.io/team"}),
        help_text="Host, with port and path if needed. oci://local is the bundled server’s own store.",
    )
    user = forms.CharField(
        max_length=200,
        required=False,
        widget=forms.TextInput(attrs=dict(PLAIN)),
        help_text="Leave empty for a registry without sign-in.",
    )
    password = SecretField(label="Password")
    forget = forms.BooleanField(label="Remove the saved password", required=False)

    class Meta:
        model = RegistryInfo
        fields = ("name", "location", "user")

    field_order = ["name", "location", "user", "password", "forget"]

    def place_of(self, row: Any) -> Any:
        return origin(registry_url(row.location)), row.user

    def clean_name(self) -> str:
        check_unique_name(self, "registry")
        return str(self.cleaned_data["name"])

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if cleaned.get("password") and not cleaned.get("user") and "user" not in self.errors:
            self.add_error("user", "Enter the user the password belongs to.")
        if self.kept_before and not cleaned.get("user"):
            cleaned["forget"] = True  # nobody signs in: the password of who did is of no use
        return cleaned
