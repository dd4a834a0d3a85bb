"""To the identity provider and back."""

import logging

from django.conf import settings
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from dashboard.access.guards import anyone
from dashboard.auth import events, login, oidc
from dashboard.auth.oidc import NotLetIn

TO = "_after_provider"  # in the session: where the person wanted to go
log = logging.getLogger(__name__)


@anyone
@never_cache
@require_safe
def go_to_provider(request: HttpRequest) -> HttpResponse:
    """Lead to the provider's own page. A link, not a form: the page's policy lets forms go nowhere else."""
    _refuse_without_provider()
    if request.user.is_authenticated:
        return HttpResponseRedirect(login.wanted(request))
    try:
        response = oidc.lead_there(request)
    except NotLetIn as reason:
        return _sorry(request, reason)
    request.session[TO] = login.wanted(request)
    return response


@anyone
@never_cache
@require_safe
def return_from_provider(request: HttpRequest) -> HttpResponse:
    """Where the provider leads back to, with a code that is changed for what it says about the person."""
    _refuse_without_provider()
    to = request.session.get(TO) or reverse("home")
    try:
        user = oidc.person(request, oidc.claims_of(request))
    except NotLetIn as reason:
        return _sorry(request, reason)
    return login.enter(request, user, to, events.PROVIDER)


def _refuse_without_provider() -> None:
    if not settings.OIDC_ISSUER:
        raise Http404("No identity provider is configured.")


def _sorry(request: HttpRequest, reason: NotLetIn) -> HttpResponse:
    log.warning("couldn't sign a user in with the identity provider: %r", str(reason)[:300])
    if reason.why in {"refused", "untrusted", "deactivated"}:
        events.failed(request, "", events.PROVIDER, str(reason))
    page = {"why": reason.why, "provider": settings.OIDC_NAME, "by_password": settings.PASSWORD_SIGN_IN}
    return render(request, "people/provider_trouble.html", page, status=reason.status)
