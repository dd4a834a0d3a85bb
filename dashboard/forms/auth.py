"""Forms for signing in, and for users to change how they sign in."""

from typing import Any

from django import forms
from django.contrib.auth.forms import AuthenticationForm, PasswordChangeForm

CODE_ATTRIBUTES = {"autocomplete": "one-time-code", "spellcheck": "false", "autocapitalize": "none"}
CURRENT_PASSWORD_ATTRIBUTES = {"autocomplete": "current-password"}


class SignInForm(AuthenticationForm):
    """User name and password."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["username"].label = "Name"
        self.fields["username"].widget.attrs |= {"spellcheck": "false"}


class CodeForm(forms.Form):
    """A TOTP code or a recovery code. The view verifies it, because verification consumes the code."""

    code = forms.CharField(
        max_length=40,
        widget=forms.TextInput(attrs=CODE_ATTRIBUTES | {"autofocus": True}),
        error_messages={"required": "Enter the 6-digit code from your authenticator app, or a recovery code."},
    )


class SwitchOnForm(CodeForm):
    """A TOTP code and the password, so that access to an open session isn't sufficient."""

    password = forms.CharField(
        widget=forms.PasswordInput(attrs=CURRENT_PASSWORD_ATTRIBUTES),
        error_messages={"required": "Enter the password you sign in with."},
    )
    field_order = ["code", "password"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["code"].help_text = "The 6-digit code that the app shows now."


class ProofForm(forms.Form):
    """The password or a code, to confirm the user's identity before changes to two-factor authentication."""

    proof = forms.CharField(
        label="Password or code",
        max_length=500,
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
        help_text="Your password, a 6-digit code from the app, or a recovery code.",
        error_messages={"required": "Enter your password or a code."},
    )


class NewPasswordForm(PasswordChangeForm):
    """The current password, and a new one twice."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["old_password"].label = "Password now"
        self.fields["new_password1"].label = "New password"
        self.fields["new_password2"].label = "Confirm new password"
        self.fields[
            "new_password1"
        ].help_text = "At least 10 characters. Don’t use a common password, only digits, or your username."
        self.fields["new_password2"].help_text = ""
