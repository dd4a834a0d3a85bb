"""The page behind the one-time set-up link, which creates the first administrator."""

from typing import TYPE_CHECKING, Any

from django.contrib.auth import get_user_model
from django.contrib.auth.forms import BaseUserCreationForm
from django.http import HttpResponse
from django.shortcuts import render, resolve_url
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from dashboard.auth import events, login, setup_link
from dashboard.http.request import Request
from dashboard.views.forms.submit import INVALID_FORM_STATUS

if TYPE_CHECKING:
    UserCreationForm = BaseUserCreationForm[Any]
else:
    UserCreationForm = BaseUserCreationForm


class FirstAdministratorForm(UserCreationForm):
    """Name and password of the first administrator."""

    class Meta:
        model = get_user_model()
        fields = ("username",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["username"].label = "Name"
        self.fields["username"].help_text = "Letters, digits and @ . + - _"
        self.fields[
            "password1"
        ].help_text = "At least 10 characters. Don’t use a common password, only digits, or the username."
        self.fields["password2"].label = "Password again"
        self.fields["password2"].help_text = ""

    def save(self, commit: bool = True) -> Any:
        """Store the user as an administrator."""
        self.instance.is_superuser = True
        return super().save(commit)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def set_up(request: Request, token: str) -> HttpResponse:
    """Create the first administrator and sign them in.

    Respond with 404 unless the link is the one printed at start-up.
    """
    if not setup_link.is_valid(token):
        return _render_invalid_link(request)
    form = FirstAdministratorForm(request.POST or None)
    if not form.is_valid():
        return render(
            request, "people/set_up.html", {"form": form}, status=INVALID_FORM_STATUS if form.is_bound else 200
        )
    if not setup_link.revoke():
        return _render_invalid_link(request)
    return login.continue_login(request, form.save(), resolve_url("home"), events.LINK)


def _render_invalid_link(request: Request) -> HttpResponse:
    return render(request, "people/void_link.html", status=404)
