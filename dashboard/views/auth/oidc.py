"""Sign-in with the identity provider (OpenID Connect)."""

import logging

from django.conf import settings
from django.http import Http404, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from dashboard.access.guards import anyone
from dashboard.auth import events, login, oidc
from dashboard.auth.oidc import OIDCLoginError
from dashboard.http.request import Request

NEXT_URL_KEY = "_after_provider"  # of the session
log = logging.getLogger(__name__)


@anyone
@never_cache
@require_safe
def go_to_provider(request: Request) -> HttpResponse:
    """Redirect to the provider's sign-in page.

    Pages link here instead of using a form, because their content security policy allows form submissions only to this
    site.
    """
    _refuse_without_provider()
    if request.user.is_authenticated:
        return HttpResponseRedirect(login.next_url(request))
    try:
        response = oidc.authorize_redirect(request)
    except OIDCLoginError as error:
        return _render_failure(request, error)
    request.session[NEXT_URL_KEY] = login.next_url(request)
    return response


@anyone
@never_cache
@require_safe
def return_from_provider(request: Request) -> HttpResponse:
    """Exchange the code from the provider for claims about the user, and sign them in."""
    _refuse_without_provider()
    next_url = request.session.get(NEXT_URL_KEY) or reverse("home")
    try:
        user = oidc.get_or_create_user(request, oidc.fetch_claims(request))
    except OIDCLoginError as error:
        return _render_failure(request, error)
    return login.complete_login(request, user, next_url, events.PROVIDER)


def _refuse_without_provider() -> None:
    if not settings.OIDC_ISSUER:
        raise Http404("No identity provider is configured.")


def _render_failure(request: Request, error: OIDCLoginError) -> HttpResponse:
    log.warning("couldn't sign a user in with the identity provider: %r", str(error)[:300])
    if error.reason in {"refused", "untrusted", "deactivated"}:
        events.record_failed_sign_in(request, "", events.PROVIDER, str(error))
    page = {"why": error.reason, "provider": settings.OIDC_NAME, "by_password": settings.PASSWORD_SIGN_IN}
    return render(request, "people/provider_trouble.html", page, status=error.status)
