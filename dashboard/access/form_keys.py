"""One effect for a form that is submitted several times, for example by a double click.

A form contains a random key. The first submission stores its redirect in the transaction of the change. Further ones
with the same key and content get the same redirect. API requests use the header Idempotency-Key instead
(dashboard.api.idempotency).
"""

import secrets
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256

from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils import timezone

from dashboard.access.models import FormSubmission
from dashboard.audit.record import PREVIEW, skip_entry
from dashboard.http.request import Request

FIELD = "form_key"
RETENTION = timedelta(days=1)
IGNORED_FIELDS = {"csrfmiddlewaretoken"}  # differs between two submissions


def new_key() -> str:
    """Return a key for a form."""
    return secrets.token_urlsafe(16)


def respond_once(request: Request, act: Callable[[], HttpResponse]) -> HttpResponse:
    """Return the response of `act`, or the redirect of an earlier submission of the form.

    Of two submissions at the same time, the second waits for the transaction of the first. Only redirects are stored:
    other responses show errors, or a secret that is shown once, such as a new token.
    """
    if request.method != "POST" or not request.POST.get(FIELD) or request.POST.get("do") == PREVIEW:
        return act()
    with transaction.atomic():
        row, is_new = FormSubmission.objects.get_or_create(user_id=request.user.pk, digest=_digest(request))
        if not is_new:
            skip_entry(request)
            return HttpResponseRedirect(row.location)
        response = act()
        if isinstance(response, HttpResponseRedirect):
            row.location = response.url
            row.save(update_fields=["location"])
        else:
            row.delete()
        return response


def prune() -> int:
    """Delete expired rows. Return their number."""
    return FormSubmission.objects.filter(at__lt=timezone.now() - RETENTION).delete()[0]


def _digest(request: HttpRequest) -> str:
    """Return a digest of what was submitted, and where."""
    fields = sorted((name, values) for name, values in request.POST.lists() if name not in IGNORED_FIELDS)
    return sha256(f"{request.path} {fields!r}".encode(errors="replace")).hexdigest()
