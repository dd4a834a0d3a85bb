"""The form that creates an API token."""

from typing import Any

from django import forms
from django.contrib.auth import get_user_model

from dashboard.access.guards import visible_accounts
from dashboard.auth import tokens
from dashboard.auth.models import ApiToken

EVERY_ACCOUNT = "Every account"


class CreateTokenForm(forms.Form):
    """A new API token for `user`, or for a service account if `user` is an administrator."""

    name = forms.CharField(
        max_length=100,
        help_text="What the token is for, such as “nightly build” or “notebook on my laptop”.",
        error_messages={"required": "Enter what the token is for."},
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    owner = forms.ChoiceField(required=False, help_text="The token can do only what its owner can.")
    scope = forms.ChoiceField(choices=ApiToken.Scope.choices, help_text="Read-only tokens can’t change anything.")
    account = forms.ChoiceField(required=False)
    days = forms.TypedChoiceField(
        label="Expires after",
        coerce=int,
        choices=[(days, f"{days} days") for days in tokens.LIFETIMES_DAYS],
        initial=90,
    )

    def __init__(self, user: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.user = user
        accounts = [(str(account.pk), account.name) for account in visible_accounts(user)]
        self.fields["account"].choices = [("", EVERY_ACCOUNT), *accounts]  # type: ignore[attr-defined]
        machines = get_user_model().objects.filter(machine__isnull=False, is_active=True) if user.is_superuser else []
        self.machines = {str(machine.pk): machine for machine in machines}
        if self.machines:
            choices = [
                ("", f"{user} (you)"),
                *((pk, f"{machine} (service account)") for pk, machine in self.machines.items()),
            ]
            self.fields["owner"].choices = choices  # type: ignore[attr-defined]
        else:
            del self.fields["owner"]

    def clean_account(self) -> int | None:
        """Return the primary key of the account; None for all accounts."""
        return int(self.cleaned_data["account"]) if self.cleaned_data["account"] else None

    def save(self) -> tuple[ApiToken, str]:
        """Store the token of a valid form. Return it with its text, which isn't stored."""
        values = self.cleaned_data
        owner = self.machines.get(values.get("owner", ""), self.user)
        return tokens.create(owner, values["name"], values["scope"], values["account"], values["days"])
