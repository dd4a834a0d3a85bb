"""Forms for members of an account and their roles."""

from typing import Any

from django import forms
from django.contrib.auth import get_user_model

from dashboard.access.models import Membership, Role
from deployments.models import HostingAccount


class AddMemberForm(forms.Form):
    """A user to add, and their role."""

    name = forms.CharField(
        max_length=150,
        help_text="Their username. Administrators create accounts.",
        error_messages={"required": "Enter the person’s username."},
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false", "autocapitalize": "none"}),
    )
    role = forms.ChoiceField(choices=Role.choices)

    def __init__(self, account: HostingAccount, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.account = account
        self.user: Any = None

    def clean_name(self) -> str:
        """Find the user by their exact name: operators must not be able to list users."""
        name: str = self.cleaned_data["name"]
        self.user = get_user_model().objects.filter(username=name, is_active=True).first()
        if self.user is None:
            raise forms.ValidationError("No active user has this name. Check the spelling.")
        if self.user.is_superuser:
            raise forms.ValidationError("Administrators can do everything in every account and don’t need a role.")
        if Membership.objects.filter(user=self.user, account_id=self.account.pk).exists():
            raise forms.ValidationError("They already have a role in this account. Change it in the list.")
        return name

    def save(self) -> Membership:
        """Store the membership of a valid form."""
        return Membership.objects.create(user=self.user, account_id=self.account.pk, role=self.cleaned_data["role"])


class RoleForm(forms.Form):
    """The new role of a member."""

    role = forms.ChoiceField(choices=Role.choices)
