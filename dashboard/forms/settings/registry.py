"""The form of a registry."""

from typing import Any

from django import forms

from dashboard.forms.fields.secret import SecretField, SettingsForm, check_unique_name
from dashboard.forms.settings.server import PLAIN_ATTRIBUTES
from deployments.models import RegistryInfo
from deployments.models.validators import check_location, origin, registry_url


class RegistryForm(SettingsForm):
    """A registry that images are pushed to. Its secret is the password."""

    credential_field = "password"

    name = forms.CharField(
        max_length=64,
        widget=forms.TextInput(attrs=dict(PLAIN_ATTRIBUTES)),
        help_text="The name people see when choosing a registry.",
    )
    location = forms.CharField(
        max_length=400,
        validators=[check_location],
        widget=forms.TextInput(attrs={**PLAIN_ATTRIBUTES, "placeholder": "example.azurecr.io/team"}),
        help_text="Host, with port and path if needed. oci://local is the bundled server’s own store.",
    )
    user = forms.CharField(
        max_length=200,
        required=False,
        widget=forms.TextInput(attrs=dict(PLAIN_ATTRIBUTES)),
        help_text="Leave empty for a registry without sign-in.",
    )
    password = SecretField(label="Password")
    forget = forms.BooleanField(label="Remove the saved password", required=False)

    class Meta:
        model = RegistryInfo
        fields = ("name", "location", "user")

    field_order = ["name", "location", "user", "password", "forget"]

    def destination_of(self, row: Any) -> Any:
        """Return the registry's origin and the user name."""
        return origin(registry_url(row.location)), row.user

    def clean_name(self) -> str:
        """Raise ValidationError if another registry has the name."""
        check_unique_name(self, "registry")
        return str(self.cleaned_data["name"])

    def clean(self) -> dict[str, Any]:
        """Require a user for a password, and delete the password together with the user."""
        cleaned = super().clean() or self.cleaned_data
        if cleaned.get("password") and not cleaned.get("user") and "user" not in self.errors:
            self.add_error("user", "Enter the user the password belongs to.")
        if self.has_stored_secret and not cleaned.get("user"):
            cleaned["forget"] = True
        return cleaned
