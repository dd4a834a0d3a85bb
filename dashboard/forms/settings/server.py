"""The server of a hosting account: where it is, as whom it is called; and adding or deleting an account."""

import re
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from dashboard.forms.fields.secret import SecretField, SettingsForm
from deployments.models import HostingAccount
from deployments.models.validators import check_authority, check_base_url, origin

SignIn = HostingAccount.SignIn
PLAIN = {"autocomplete": "off", "spellcheck": "false", "autocapitalize": "none"}
PLACE = ["base_url", "subscription", "resource_group", "hosting_account", "api_version", "sign_in"]
ENTRA = ["tenant", "client_id", "scope", "authority"]
TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")


def _plain(label: str, help_text: str = "", **options: Any) -> forms.CharField:
    options.setdefault("max_length", 200)
    return forms.CharField(label=label, help_text=help_text, widget=forms.TextInput(attrs=dict(PLAIN)), **options)


class ServerForm(SettingsForm):
    """Address, names and credentials. Which secret is asked for follows from the way to sign in."""

    base_url = _plain(
        "Base URL",
        "Scheme, host and port of the server, without /api. Private addresses are fine.",
        max_length=400,
        validators=[check_base_url],
    )
    subscription = _plain("Subscription")
    resource_group = _plain("Resource group")
    hosting_account = _plain("Hosting account", "The account’s name on the server.")
    api_version = _plain("API version", max_length=64)
    sign_in = forms.ChoiceField(
        label="Sign-in", choices=SignIn.choices, help_text="How the dashboard signs in to the server."
    )
    token = SecretField(label="Bearer token")
    tenant = _plain("Tenant", "The directory’s ID or domain.", required=False)
    client_id = _plain("Client id", "Of the application registered for this site.", required=False)
    client_secret = SecretField(label="Client secret")
    scope = _plain(
        "Scope", "Usually the server’s application ID URI followed by /.default.", max_length=400, required=False
    )
    authority = _plain(
        "Authority",
        "The address that issues tokens. It differs between clouds.",
        max_length=400,
        required=False,
        validators=[check_authority],
    )

    class Meta:
        model = HostingAccount
        fields = [*PLACE, *ENTRA]

    field_order = [*PLACE, "token", "tenant", "client_id", "client_secret", "scope", "authority"]

    def __init__(self, data: Any = None, **options: Any) -> None:
        instance = options.get("instance")
        chosen = (data or {}).get("sign_in") or (instance.sign_in if instance else SignIn.TOKEN)
        self.sealed = "client_secret" if chosen == SignIn.ENTRA else "token"
        self.credentials_before = instance.credentials if instance and instance.pk else None
        self.address_before = instance.base_url if instance else ""
        super().__init__(data, **options)

    @property
    def kept_token(self) -> bool:
        return self.kept_before and not self.entra

    @property
    def kept_client_secret(self) -> bool:
        return self.kept_before and self.entra

    @property
    def entra(self) -> bool:
        return self.sealed == "client_secret"

    def place_of(self, row: Any) -> Any:
        """A bearer token goes to the server, a client secret to the authority; what that gives goes to the server."""
        way = (origin(row.authority), row.tenant, row.client_id) if self.entra else ()
        return (origin(row.base_url), *way)

    def clean_base_url(self) -> str:
        return str(self.cleaned_data["base_url"]).rstrip("/")

    def clean_authority(self) -> str:
        default = HostingAccount._meta.get_field("authority").default
        return str(self.cleaned_data["authority"]).rstrip("/") or str(default)

    def clean_tenant(self) -> str:
        tenant = str(self.cleaned_data["tenant"])
        if tenant and not TENANT.fullmatch(tenant):
            raise ValidationError("Enter the directory’s ID or its domain, such as example.onmicrosoft.com.")
        return tenant

    def clean_token(self) -> str:
        return _sendable(self.cleaned_data["token"])

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        if self.entra:
            for name in ("tenant", "client_id", "scope"):
                if not cleaned.get(name) and name not in self.errors:
                    self.add_error(name, "Required for Entra ID.")
        return cleaned

    def settle_secret(self) -> None:
        super().settle_secret()
        if not self.errors and not getattr(self.instance, self.sealed):
            self.add_error(self.sealed, f"Enter the {str(self.fields[self.sealed].label).lower()}.")
        # The other way's secret would else stay valid, unseen.
        other = "token" if self.entra else "client_secret"
        if not self.errors:
            setattr(self.instance, other, None)

    def save_by(self, by: str) -> HostingAccount:
        row: HostingAccount = self.instance
        if row.credentials != self.credentials_before or row.base_url != self.address_before:
            row.clear_failure()
        super().save_by(by)
        return row


class AddAccountForm(ServerForm):
    name = forms.SlugField(
        label="Name",
        max_length=64,
        help_text="How people here call it; part of every page’s address. Letters, digits, hyphens and underscores.",
        widget=forms.TextInput(attrs=dict(PLAIN)),
    )

    class Meta(ServerForm.Meta):
        fields = ["name", *PLACE, *ENTRA]

    field_order = ["name", *ServerForm.field_order]

    def clean_name(self) -> str:
        name = str(self.cleaned_data["name"])
        if HostingAccount.objects.filter(name=name).exists():
            raise ValidationError("An account with this name already exists.")
        return name


class ConfirmForm(forms.Form):
    """The name of what is deleted, typed out."""

    name = forms.CharField(label="Its name", widget=forms.TextInput(attrs=dict(PLAIN)))

    def __init__(self, expected: str, data: Any = None) -> None:
        self.expected = expected
        super().__init__(data)

    def clean_name(self) -> str:
        if self.cleaned_data["name"] != self.expected:
            raise ValidationError(f"Type {self.expected} to delete it.")
        return self.expected


def _sendable(token: str) -> str:
    """Raises ValidationError where the token could stand in no header."""
    if token and not re.fullmatch(r"[!-~]+", token):
        raise ValidationError("A token has no spaces and only ASCII characters. Check that you copied all of it.")
    return token
