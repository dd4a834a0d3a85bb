"""Forms of an account's server, and for adding and deleting accounts."""

import re
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from dashboard.forms.fields.secret import SecretField, SettingsForm
from deployments.models import HostingAccount
from deployments.models.validators import check_authority, check_base_url, origin
from encryption.fields import readable

SignIn = HostingAccount.SignIn
PLAIN_ATTRIBUTES = {"autocomplete": "off", "spellcheck": "false", "autocapitalize": "none"}
SERVER_FIELDS = ["base_url", "subscription", "resource_group", "hosting_account", "api_version", "sign_in"]
ENTRA_FIELDS = ["tenant", "client_id", "scope", "authority"]
TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")


def _text_field(label: str, help_text: str = "", **options: Any) -> forms.CharField:
    options.setdefault("max_length", 200)
    return forms.CharField(
        label=label, help_text=help_text, widget=forms.TextInput(attrs=dict(PLAIN_ATTRIBUTES)), **options
    )


class ServerForm(SettingsForm):
    """Address, names and credentials of a server. The sign-in method determines which field is the secret."""

    base_url = _text_field(
        "Base URL",
        "Scheme, host and port of the server, without /api. Private addresses are fine.",
        max_length=400,
        validators=[check_base_url],
    )
    subscription = _text_field("Subscription")
    resource_group = _text_field("Resource group")
    hosting_account = _text_field("Hosting account", "The account’s name on the server.")
    api_version = _text_field("API version", max_length=64)
    sign_in = forms.ChoiceField(
        label="Sign-in", choices=SignIn.choices, help_text="How the dashboard signs in to the server."
    )
    token = SecretField(label="Bearer token")
    tenant = _text_field("Tenant", "The directory’s ID or domain.", required=False)
    client_id = _text_field("Client id", "Of the application registered for this site.", required=False)
    client_secret = SecretField(label="Client secret")
    scope = _text_field(
        "Scope", "Usually the server’s application ID URI followed by /.default.", max_length=400, required=False
    )
    authority = _text_field(
        "Authority",
        "The address that issues tokens. It differs between clouds.",
        max_length=400,
        required=False,
        validators=[check_authority],
    )

    class Meta:
        model = HostingAccount
        fields = [*SERVER_FIELDS, *ENTRA_FIELDS]

    field_order = [*SERVER_FIELDS, "token", "tenant", "client_id", "client_secret", "scope", "authority"]

    def __init__(self, data: Any = None, **options: Any) -> None:
        instance = options.get("instance")
        chosen = (data or {}).get("sign_in") or (instance.sign_in if instance else SignIn.TOKEN)
        self.credential_field = "client_secret" if chosen == SignIn.ENTRA else "token"
        self.credentials_before = instance.credentials if instance and instance.pk else None
        self.address_before = instance.base_url if instance else ""
        super().__init__(data, **options)

    @property
    def has_stored_token(self) -> bool:
        """True if the row has a bearer token that stays in use."""
        return self.has_stored_secret and not self.uses_entra

    @property
    def has_stored_client_secret(self) -> bool:
        """True if the row has a client secret that stays in use."""
        return self.has_stored_secret and self.uses_entra

    @property
    def uses_entra(self) -> bool:
        """True if the submitted sign-in method is Entra ID."""
        return self.credential_field == "client_secret"

    def destination_of(self, row: Any) -> Any:
        """Return the origins that secrets are sent to.

        A bearer token is sent to the server. A client secret is sent to the authority, and the token that the authority
        issues is sent to the server.
        """
        authority = (origin(row.authority), row.tenant, row.client_id) if self.uses_entra else ()
        return (origin(row.base_url), *authority)

    def clean_base_url(self) -> str:
        """Remove trailing slashes."""
        return str(self.cleaned_data["base_url"]).rstrip("/")

    def clean_authority(self) -> str:
        """Remove trailing slashes; without an authority, return the default."""
        default = HostingAccount._meta.get_field("authority").default
        return str(self.cleaned_data["authority"]).rstrip("/") or str(default)

    def clean_tenant(self) -> str:
        """Raise ValidationError unless it can be a directory's id or domain."""
        tenant = str(self.cleaned_data["tenant"])
        if tenant and not TENANT.fullmatch(tenant):
            raise ValidationError("Enter the directory’s ID or its domain, such as example.onmicrosoft.com.")
        return tenant

    def clean_token(self) -> str:
        """Raise ValidationError if the token can't be sent in a header."""
        return _check_token(self.cleaned_data["token"])

    def clean(self) -> dict[str, Any]:
        """Require the fields of Entra ID if it is the sign-in method."""
        cleaned = super().clean() or self.cleaned_data
        if self.uses_entra:
            for name in ("tenant", "client_id", "scope"):
                if not cleaned.get(name) and name not in self.errors:
                    self.add_error(name, "Required for Entra ID.")
        return cleaned

    def apply_secret(self) -> None:
        """Require a secret, and delete that of the other sign-in method."""
        super().apply_secret()
        if not self.errors and not readable(self.instance, self.credential_field):
            self.add_error(self.credential_field, f"Enter the {str(self.fields[self.credential_field].label).lower()}.")
        # Otherwise it would stay valid without being visible anywhere.
        other = "token" if self.uses_entra else "client_secret"
        if not self.errors:
            setattr(self.instance, other, None)

    def save_by(self, by: str) -> HostingAccount:
        """Store the row, and clear recorded failures if the address or the credentials have changed."""
        row: HostingAccount = self.instance
        is_other = row.credentials != self.credentials_before or row.base_url != self.address_before
        if is_other:
            row.clear_failure()
        super().save_by(by)
        if is_other:
            row.release_queued()
        return row


class AddAccountForm(ServerForm):
    """A new hosting account and its server."""

    name = forms.SlugField(
        label="Name",
        max_length=64,
        help_text="The name in the dashboard and in page URLs. Use letters, digits, hyphens and underscores.",
        widget=forms.TextInput(attrs=dict(PLAIN_ATTRIBUTES)),
    )

    class Meta(ServerForm.Meta):
        fields = ["name", *SERVER_FIELDS, *ENTRA_FIELDS]

    field_order = ["name", *ServerForm.field_order]

    def clean_name(self) -> str:
        """Raise ValidationError if another account has the name."""
        name = str(self.cleaned_data["name"])
        if HostingAccount.objects.filter(name=name).exists():
            raise ValidationError("An account with this name already exists.")
        return name


class ConfirmForm(forms.Form):
    """Confirmation of a deletion by typing the name of the row."""

    name = forms.CharField(label="Its name", widget=forms.TextInput(attrs=dict(PLAIN_ATTRIBUTES)))

    def __init__(self, expected: str, data: Any = None) -> None:
        self.expected = expected
        super().__init__(data)

    def clean_name(self) -> str:
        """Raise ValidationError unless the name is the expected one."""
        if self.cleaned_data["name"] != self.expected:
            raise ValidationError(f"Type {self.expected} to delete it.")
        return self.expected


def _check_token(token: str) -> str:
    """Return the token. Raise ValidationError if it can't be sent in a header."""
    if token and not re.fullmatch(r"[!-~]+", token):
        raise ValidationError("A token has no spaces and only ASCII characters. Check that you copied all of it.")
    return token
