"""To the identity provider and back."""

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

TO = "_after_provider"  # in the session: where the person wanted to go
log = logging.getLogger(__name__)


@anyone
@never_cache
@require_safe
def go_to_provider(request: Request) -> HttpResponse:
    """Lead to the provider's own page. A link, not a form: the page's policy lets forms go nowhere else."""
    _refuse_without_provider()
    if request.user.is_authenticated:
        return HttpResponseRedirect(login.next_url(request))
    try:
        response = oidc.authorize_redirect(request)
    except OIDCLoginError as reason:
        return _sorry(request, reason)
    request.session[TO] = login.next_url(request)
    return response


@anyone
@never_cache
@require_safe
def return_from_provider(request: Request) -> HttpResponse:
    """Where the provider leads back to, with a code that is changed for what it says about the person."""
    _refuse_without_provider()
    to = request.session.get(TO) or reverse("home")
    try:
        user = oidc.get_or_create_user(request, oidc.fetch_claims(request))
    except OIDCLoginError as reason:
        return _sorry(request, reason)
    return login.complete_login(request, user, to, events.PROVIDER)


def _refuse_without_provider() -> None:
    if not settings.OIDC_ISSUER:
        raise Http404("No identity provider is configured.")


def _sorry(request: Request, reason: OIDCLoginError) -> HttpResponse:
    log.warning("couldn't sign a user in with the identity provider: %r", str(reason)[:300])
    if reason.reason in {"refused", "untrusted", "deactivated"}:
        events.record_failed_sign_in(request, "", events.PROVIDER, str(reason))
    page = {"why": reason.reason, "provider": settings.OIDC_NAME, "by_password": settings.PASSWORD_SIGN_IN}
    return render(request, "people/provider_trouble.html", page, status=reason.status)
