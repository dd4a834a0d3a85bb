"""Template tags of every page: badges, times, links that keep the filters."""

import json
from datetime import datetime
from itertools import groupby
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit

from django import template
from django.conf import settings
from django.template.context import Context
from django.urls import reverse
from django.utils import timezone
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString

from dashboard.access import service_rules
from dashboard.access.permissions import Permission
from dashboard.catalog.lineage import NOUN
from dashboard.files.store import is_file_url
from dashboard.forms import snippets
from dashboard.forms.site.audit import words
from deployments.live.badges import LIST_STALE_AFTER
from deployments.models import Operation, Service

register = template.Library()

UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
NOTHING = SafeString('<span class="muted">–</span>')
DATE_AFTER = 30 * 86400  # seconds; older than that, a date says more than a number of days


def relative(then: datetime, now: datetime | None = None) -> str:
    """`then` as people say it: "now", "4 s ago", "in 3 min", "12 d ago"; a date when it is more than 30 days away."""
    seconds = ((now or timezone.now()) - then).total_seconds()
    size = abs(seconds)
    if size < 2:
        return "now"
    if size >= DATE_AFTER:
        return f"{timezone.localtime(then):%-d %b %Y}"
    unit, length = next((unit, length) for unit, length in UNITS if size >= length)
    return f"in {size // length:.0f} {unit}" if seconds < 0 else f"{size // length:.0f} {unit} ago"


@register.simple_tag
def when(value: datetime | None) -> SafeString:
    """A <time> with the relative time as text and the exact one in its title; a dash for None."""
    if value is None:
        return NOTHING
    exact = f"{timezone.localtime(value):%Y-%m-%d %H:%M:%S %Z}"
    # Nothing in it comes from outside, and it is the most frequent tag of all: no escaping.
    return SafeString(f'<time datetime="{value.isoformat()}" title="{exact}">{relative(value)}</time>')


@register.simple_tag
def site_command(name: str) -> str:
    """Return what to type on the server to run the command `name`, for example "manage.py prune"."""
    return f"{settings.COMMAND} {name}"


@register.simple_tag
def start_command() -> str:
    """Return what to type on the server to start the site."""
    command: str = settings.START_COMMAND
    return command


@register.filter
def outdated(seen: datetime) -> bool:
    """Whether a list read from the server at `seen` is too old to be taken for the truth."""
    return timezone.now() - seen > LIST_STALE_AFTER


@register.filter
def action_words(action: str) -> str:
    """`register_model`, as the audit keeps it, in words."""
    return words(action)


@register.filter
def as_json(value: Any) -> str:
    """A value of the audit as text."""
    return json.dumps(value, ensure_ascii=False)


@register.filter
def in_blocks(details: list[dict[str, str]]) -> list[dict[str, str]]:
    """The details of an error, lines of the same origin (a log, sent line by line) put together in one block."""
    blocks = groupby(details, key=lambda detail: detail.get("target", ""))
    return [
        {"target": target, "message": "\n".join(detail.get("message", "") for detail in lines)}
        for target, lines in blocks
    ]


@register.simple_tag(takes_context=True)
def command_of(context: Context, form: Any) -> Any:
    """The call of the JSON API that does what the form of this page does; None where there is none."""
    match = context["request"].resolver_match
    return snippets.of_page(match.url_name, match.kwargs, form) if match else None


@register.simple_tag(takes_context=True)
def why_not(context: Context, permission: str, row: Any = None) -> str:
    """Why the reader may not do that (to that service or operation, if one is given); "" where they may."""
    request = context["request"]
    rank, name = getattr(request, "access_level", 0), request.user.get_username()
    if isinstance(row, Operation):
        return service_rules.operation_denial_reason(rank, name, row)
    service = row if isinstance(row, Service) else None
    return service_rules.denial_reason(rank, name, Permission(permission), service)


@register.simple_tag(takes_context=True)
def action(
    context: Context, page: str, label: str, row: Any = None, *, css: str = "primary", **query: Any
) -> SafeString:
    """A button that leads to `page`, which is called as the permission that it takes; greyed out, with the role that
    is missing, for those who may not go there. `row`: the service that it is about; the rest is the query of the
    address: {% action "create_image" "Build image" manifest=row.pk %}."""
    if reason := why_not(context, page, row):
        return format_html('<button type="button" class="{}" disabled title="{}">{}</button>', css, reason, label)
    url = reverse(page, args=[context["account"].name, *([row.pk] if row else [])])
    asked = f"?{urlencode(query)}" if query else ""
    return format_html('<a class="button {}" href="{}{}">{}</a>', css, url, asked, label)


@register.inclusion_tag("_shared/_badge.html")
def badge(badge: Any) -> dict[str, Any]:
    """The state of an operation or a resource (a deployments.live.events.Badge), as pages and the stream render it."""
    return {"badge": badge}


@register.simple_tag(takes_context=True)
def nav_link(context: Context, url_name: str, label: str) -> SafeString:
    """A link of the navigation; marked as current on its own page and on all pages below it."""
    return _link(context, url_name, label, exact=url_name == "account_home")


@register.simple_tag(takes_context=True)
def tab_link(context: Context, url_name: str, label: str) -> SafeString:
    """The same for one of several pages that belong together; the first of them has the others below it."""
    return _link(context, url_name, label, exact=url_name == "change_server")


def _link(context: Context, url_name: str, label: str, *, exact: bool) -> SafeString:
    url, path = reverse(url_name, args=[context["account"].name]), context["request"].path
    current = path == url if exact else path.startswith(url)
    return format_html('<a href="{}"{}>{}</a>', url, SafeString(' aria-current="page"') if current else "", label)


@register.simple_tag(takes_context=True)
def link_to(context: Context, row: Any) -> SafeString:
    """The name of a resource, linked to its page; a dash for None."""
    if row is None:
        return NOTHING
    return format_html(
        '<a href="{}">{}</a>', reverse(f"get_{NOUN[type(row)]}", args=[context["account"].name, row.pk]), row
    )


@register.filter
def took(operation: Any) -> str:
    """How long an operation took from request to end, as "4.2 s", "3 min 20 s"; "" while it is open."""
    if operation.finished_at is None:
        return ""
    seconds = (operation.finished_at - operation.requested_at).total_seconds()
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


@register.filter
def with_code(text: str) -> SafeString:
    """The text, escaped, with what stands between backquotes set as code."""
    parts = escape(text).split("`")
    return SafeString("".join(f"<code>{part}</code>" if at % 2 else part for at, part in enumerate(parts)))


@register.filter
def source(url: str) -> SafeString:
    """Where a file comes from, without the access key its URL may carry; a link only where that is safe and whole."""
    parts = urlsplit(url)
    if is_file_url(url):
        digest, _, name = parts.path.rpartition("/files/")[2].partition("/")
        return format_html(
            'Uploaded: {} <span class="mono muted" title="sha256">{}…</span>', unquote(name), digest[:12]
        )
    if parts.scheme not in {"http", "https"} or parts.query or parts.username or parts.password:
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        return format_html("{}{}", shown, "?…" if parts.query else "")
    return format_html('<a href="{}" rel="noreferrer">{}</a>', url, url)
