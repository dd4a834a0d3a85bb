"""The data that a page needs for live updates: its position in the event stream, and its interest in an account."""

from dashboard.http.request import Request
from deployments.live import events
from deployments.mirror import refresh
from deployments.models import HostingAccount


def record_page_view(request: Request, account: HostingAccount) -> None:
    """Record the stream position and the interest in `account`. Call it before any row is read.

    Rows read after the position can only be newer. Events in between may be delivered twice but are never missed.
    """
    if request.method == "GET":
        request.stream_position = events.stream_position()
        refresh.record_interest(account.pk)
