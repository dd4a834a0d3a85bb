"""What the site says of a request that it did not even begin to read, or could not finish."""

import re
import sys

from django.core.exceptions import DisallowedHost, RequestDataTooBig
from django.http import HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.views import defaults

from dashboard.http import db_errors, problems
from dashboard.http.request import Request

RETRY_SECONDS = 5
SECRET = re.compile("password|secret|token|key|kube", re.IGNORECASE)  # in the name of a field
CSRF = "csrfmiddlewaretoken"


def not_understood(request: Request, exception: Exception) -> HttpResponse:
    """413 for a form that is too long, 400 for anything else."""
    if request.path.startswith(problems.API_PREFIX):
        return problems.error_response(400, "The request isn’t valid.")
    if isinstance(exception, RequestDataTooBig):
        return render(request, "413.html", status=413)
    if isinstance(exception, DisallowedHost):
        page = {"host": request.META.get("HTTP_HOST", "")[:100]}
        return HttpResponse(render_to_string("400.html", page), status=400)
    return defaults.bad_request(request, exception)


def broken(request: Request) -> HttpResponse:
    """503 while the database cannot do its part, 500 for anything else. Called while the error is being dealt with."""
    reason = db_errors.user_message(sys.exc_info()[1])
    if request.path.startswith(problems.API_PREFIX):
        said = (
            f"{reason} Nothing was done. Try again in a moment."
            if reason
            else "An error occurred on the site. Its log has the reason."
        )
        return problems.error_response(503 if reason else 500, said)
    return not_now(request, reason) if reason else defaults.server_error(request)


def not_now(request: Request, reason: str) -> HttpResponse:
    """Say that it did not happen, and offer to send the same again. Rendered without the database."""
    wrote = request.method not in {"GET", "HEAD"}
    page = {"reason": reason, "wrote": wrote, "fields": sent(request) if wrote else [], "url": request.get_full_path()}
    page["sure"] = reason != db_errors.UNREACHABLE  # a connection may break between a commit and the word of it
    headers = {"Retry-After": str(RETRY_SECONDS), "Cache-Control": "no-store"}
    return HttpResponse(render_to_string("503.html", page), status=503, headers=headers)


def sent(request: Request) -> list[tuple[str, str]]:
    """The fields of the form that was sent; none where one of them is secret and must not stand in a page."""
    fields = [(name, str(value)) for name, values in request.POST.lists() for value in values]
    return [] if any(SECRET.search(name) for name, _ in fields if name != CSRF) else fields
