"""Signing in and out, and the reader's choice of colours."""

from django.contrib.auth.views import LoginView, LogoutView
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from dashboard.access import anyone, own_path

A_YEAR = 365 * 24 * 3600  # seconds

sign_in = anyone(LoginView.as_view(template_name="people/sign_in.html", redirect_authenticated_user=True))
sign_out = anyone(LogoutView.as_view())


@anyone
@require_POST
def choose_theme(request: HttpRequest) -> HttpResponse:
    """Keep the choice of colours in a cookie and go back to the page it was made on."""
    response = redirect(own_path(request, request.POST.get("next", "")))
    chosen = request.POST.get("theme", "")
    if chosen in {"light", "dark"}:
        response.set_cookie("theme", chosen, max_age=A_YEAR, samesite="Lax", httponly=True, secure=request.is_secure())
    else:
        response.delete_cookie("theme", samesite="Lax")
    return response
