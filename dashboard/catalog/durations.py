"""Times and durations as pages show them."""

from datetime import datetime

from django.utils import timezone

UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))  # with their length in seconds
NOW_SECONDS = 2
DATE_AFTER_SECONDS = 30 * 86400  # beyond this, a date is clearer than a number of days


def relative_time(then: datetime, now: datetime | None = None) -> str:
    """Return `then` relative to now: "now", "4 s ago", "in 3 min", "12 d ago"; a date if it is 30 days away or more."""
    seconds = ((now or timezone.now()) - then).total_seconds()
    size = abs(seconds)
    if size < NOW_SECONDS:
        return "now"
    if size >= DATE_AFTER_SECONDS:
        return f"{timezone.localtime(then):%-d %b %Y}"
    unit, length = next((unit, length) for unit, length in UNITS if size >= length)
    return f"in {size // length:.0f} {unit}" if seconds < 0 else f"{size // length:.0f} {unit} ago"


def exact_time(value: datetime) -> str:
    """Return date, time and time zone: "2026-11-02 09:30:00 UTC"."""
    return f"{timezone.localtime(value):%Y-%m-%d %H:%M:%S %Z}"


def format_duration(seconds: float) -> str:
    """Return a duration with at most two units: "4.2 s", "3 min 20 s", "2 h 5 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
