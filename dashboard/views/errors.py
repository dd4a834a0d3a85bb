"""What the site says of a request that it did not even begin to read."""

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views import defaults


def not_understood(request: HttpRequest, exception: Exception) -> HttpResponse:
    """413 for a form that is too long, 400 for anything else."""
    if isinstance(exception, RequestDataTooBig):
        return render(request, "413.html", status=413)
    return defaults.bad_request(request, exception)
