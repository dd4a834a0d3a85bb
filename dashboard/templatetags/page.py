"""Template tags: times, badges, links and buttons that depend on the user's permissions."""

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

from dashboard.access import form_keys, service_rules
from dashboard.access.permissions import Permission
from dashboard.catalog.badges import BADGE_TEMPLATE
from dashboard.catalog.durations import exact_time, format_duration, relative_time
from dashboard.catalog.lineage import NOUN
from dashboard.files.store import is_file_url
from dashboard.forms import snippets
from dashboard.forms.site.audit import action_label
from deployments.live import redis
from deployments.live.badges import LIST_STALE_AFTER
from deployments.models import Operation, Service

register = template.Library()

LONG_NAME_CHARS = 20  # lists may cut longer names
NOTHING = SafeString('<span class="muted">–</span>')


@register.simple_tag
def when(value: datetime | None) -> SafeString:
    """Return a <time> element with the relative time, and the exact one as its title; a dash for None."""
    if value is None:
        return NOTHING
    # No escaping: it contains no user input, and this is the most frequent tag.
    return SafeString(f'<time datetime="{value.isoformat()}" title="{exact_time(value)}">{relative_time(value)}</time>')


@register.simple_tag
def redis_outage() -> str:
    """Return what is wrong with Redis, without a period, or "" if it works."""
    return redis.outage()


@register.simple_tag
def due(value: datetime) -> SafeString:
    """Return a <time> element for something that comes next: "in 3 s", or "now" once its time has passed."""
    ahead = max(value, timezone.now())
    return SafeString(
        f'<time datetime="{value.isoformat()}" data-due title="{exact_time(value)}">{relative_time(ahead)}</time>'
    )


@register.simple_tag
def form_key() -> SafeString:
    """Return a hidden field that limits a form to one effect, even if it is submitted several times."""
    return format_html('<input type="hidden" name="{}" value="{}">', form_keys.FIELD, form_keys.new_key())


@register.simple_tag
def site_command(name: str) -> str:
    """Return the shell command that runs the management command `name`, such as "manage.py prune"."""
    return f"{settings.COMMAND} {name}"


@register.simple_tag
def start_command() -> str:
    """Return the shell command that starts the site."""
    command: str = settings.START_COMMAND
    return command


@register.filter
def outdated(seen: datetime) -> bool:
    """Return True if a list that was read from the server at `seen` is out of date."""
    return timezone.now() - seen > LIST_STALE_AFTER


@register.filter
def action_words(action: str) -> str:
    """Return an action of the audit log as text: `register_model` as "Register model"."""
    return action_label(action)


@register.filter
def as_json(value: Any) -> str:
    """Return a value as JSON text."""
    return json.dumps(value, ensure_ascii=False)


@register.filter
def in_blocks(details: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return the details of an error with consecutive lines of one target, such as a log, joined into one block."""
    blocks = groupby(details, key=lambda detail: detail.get("target", ""))
    return [
        {"target": target, "message": "\n".join(detail.get("message", "") for detail in lines)}
        for target, lines in blocks
    ]


@register.simple_tag(takes_context=True)
def page_snippet(context: Context, form: Any) -> Any:
    """Return the API snippets for the form of this page; None if the API has no such route."""
    match = context["request"].resolver_match
    return snippets.build_page_snippet(match.url_name, match.kwargs, form) if match else None


@register.simple_tag(takes_context=True)
def denial_reason(context: Context, permission: str, row: Any = None) -> str:
    """Return why the user lacks `permission`, for the service or operation `row` if given; "" if they have it."""
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
    """Return a link styled as a button to `page`, whose name is also the permission that it needs.

    Without the permission, the button is disabled and its title gives the reason. `row`: the service of the page.
    `query`: the query string, as in `{% action "create_image" "Build image" manifest=row.pk %}`.
    """
    if reason := denial_reason(context, page, row):
        return format_html('<button type="button" class="{}" disabled title="{}">{}</button>', css, reason, label)
    url = reverse(page, args=[context["account"].name, *([row.pk] if row else [])])
    query_string = f"?{urlencode(query)}" if query else ""
    return format_html('<a class="button {}" href="{}{}">{}</a>', css, url, query_string, label)


@register.inclusion_tag(BADGE_TEMPLATE)
def badge(badge: Any) -> dict[str, Any]:
    """Render a badge (deployments.live.badges.Badge), as the event stream does."""
    return {"badge": badge}


@register.simple_tag(takes_context=True)
def nav_link(context: Context, url_name: str, label: str) -> SafeString:
    """Return a link of the navigation, marked as current on its page and on all pages below it."""
    return _link(context, url_name, label, exact=url_name == "account_home")


@register.simple_tag(takes_context=True)
def tab_link(context: Context, url_name: str, label: str) -> SafeString:
    """Return the link of a tab, marked as current like `nav_link`. The first tab's URL is a prefix of the others'."""
    return _link(context, url_name, label, exact=url_name == "change_server")


def _link(context: Context, url_name: str, label: str, *, exact: bool) -> SafeString:
    url, path = reverse(url_name, args=[context["account"].name]), context["request"].path
    current = path == url if exact else path.startswith(url)
    return format_html('<a href="{}"{}>{}</a>', url, SafeString(' aria-current="page"') if current else "", label)


@register.simple_tag(takes_context=True)
def link_to(context: Context, row: Any) -> SafeString:
    """Return the name of a resource, linked to its page; a dash for None."""
    if row is None:
        return NOTHING
    url, name = reverse(f"get_{NOUN[type(row)]}", args=[context["account"].name, row.pk]), str(row)
    title = format_html(' title="{}"', name) if len(name) > LONG_NAME_CHARS else ""
    return format_html('<a href="{}"{}>{}</a>', url, title, name)


@register.filter
def took(operation: Any) -> str:
    """Return the time from request to end of an operation; "" while it is open."""
    if operation.finished_at is None:
        return ""
    return format_duration((operation.finished_at - operation.requested_at).total_seconds())


@register.filter
def with_code(text: str) -> SafeString:
    """Return the text, escaped, with parts in backquotes as <code>."""
    parts = escape(text).split("`")
    return SafeString("".join(f"<code>{part}</code>" if at % 2 else part for at, part in enumerate(parts)))


@register.filter
def source(url: str) -> SafeString:
    """Return the source of a file without credentials. It is a link only if its URL contains no credentials."""
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
