"""Responses to requests that couldn't be read or completed."""

import re
import sys

from django.core.exceptions import DisallowedHost, RequestDataTooBig
from django.http import HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.views import defaults

from dashboard.http import db_errors, problems
from dashboard.http.request import Request
from encryption.fields import UndecryptableError

RETRY_SECONDS = 5
SECRET_NAME = re.compile("password|secret|token|key|kube", re.IGNORECASE)  # maximum length of a form field
CSRF = "csrfmiddlewaretoken"


def not_understood(request: Request, exception: Exception) -> HttpResponse:
    """Respond with 413 to a form that is too long, else with 400."""
    if request.path_info.startswith(problems.API_PREFIX):
        return problems.error_response(400, "The request isn’t valid.")
    if isinstance(exception, RequestDataTooBig):
        return render(request, "413.html", status=413)
    if isinstance(exception, DisallowedHost):
        page = {"host": request.META.get("HTTP_HOST", "")[:100]}
        return HttpResponse(render_to_string("400.html", page), status=400)
    return defaults.bad_request(request, exception)


def broken(request: Request) -> HttpResponse:
    """Respond with 503 to a database error or an undecryptable secret, else with 500.

    Django calls it while it handles the exception.
    """
    if isinstance(error := sys.exc_info()[1], UndecryptableError):
        return undecryptable(request, str(error).replace("'", "’"))
    reason = db_errors.user_message(sys.exc_info()[1])
    if request.path_info.startswith(problems.API_PREFIX):
        message = (
            f"{reason} Nothing was changed. Try again in a moment."
            if reason
            else "An error occurred on the site. Its log has the reason."
        )
        return problems.error_response(503 if reason else 500, message)
    return service_unavailable(request, reason) if reason else defaults.server_error(request)


def undecryptable(request: Request, reason: str) -> HttpResponse:
    """Respond to a request that needs a secret which can't be decrypted."""
    if request.path_info.startswith(problems.API_PREFIX):
        return problems.error_response(503, reason)
    page = {"reason": reason, "url": request.get_full_path()}
    return HttpResponse(render_to_string("undecryptable.html", page), status=503, headers={"Cache-Control": "no-store"})


def service_unavailable(request: Request, reason: str) -> HttpResponse:
    """Respond with a page that explains the failure and offers a retry. Renders without the database."""
    wrote = request.method not in {"GET", "HEAD"}
    page = {
        "reason": reason,
        "wrote": wrote,
        "fields": sent_fields(request) if wrote else [],
        "url": request.get_full_path(),
    }
    # A connection can break after a commit and before its confirmation: then the outcome is unknown.
    page["sure"] = reason != db_errors.UNREACHABLE
    headers = {"Retry-After": str(RETRY_SECONDS), "Cache-Control": "no-store"}
    return HttpResponse(render_to_string("503.html", page), status=503, headers=headers)


def sent_fields(request: Request) -> list[tuple[str, str]]:
    """Return the fields of the submitted form; none if one of them is secret and must not appear in a page."""
    fields = [(name, str(value)) for name, values in request.POST.lists() for value in values]
    return [] if any(SECRET_NAME.search(name) for name, _ in fields if name != CSRF) else fields
