"""What somebody who is signed in sees is kept nowhere: no cache, no history of the browser, errors included."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.utils.cache import patch_cache_control, patch_vary_headers


class NoStore:
    """Middleware, inside of the one that knows who asks."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        # What never looked at the session shows nobody's own; asking would cost a query.
        if request.session.accessed and request.user.is_authenticated:
            patch_cache_control(response, no_store=True, private=True)
            patch_vary_headers(response, ["HX-Request"])
        return response
