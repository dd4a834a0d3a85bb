"""What a page needs to be live: where the stream stood before its rows were read, and that somebody looks."""

from django.http import HttpRequest

from deployments.live import events
from deployments.mirror import refresh
from deployments.models import HostingAccount


def begin(request: HttpRequest, account: HostingAccount) -> None:
    """Remember the stream's position and note the interest in `account`; to be called before any row is read.

    A row read after the position can only be newer: an event in between comes twice, never not at all.
    """
    if request.method == "GET":
        request.stream_position = events.position()  # type: ignore[attr-defined]
        refresh.note_interest(account.pk)
