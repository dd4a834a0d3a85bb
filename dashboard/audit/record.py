"""Who did what: an append-only record of every change and every sign-in.

The guards in access.py write an entry for each request that may change something, so that no page can forget to; the
page adds what it knows with `note`. An entry of a page is written in the transaction of the change itself: neither is
there without the other. What happens elsewhere (sign-in, commands) is written with `record`.
"""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.db import Error, transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.utils import timezone

from dashboard.http import db_errors
from dashboard.http.client_ip import address
from dashboard.models import AuditEntry

Result = AuditEntry.Result
LONGEST = 500  # characters of one text in before and after
SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
PREVIEW = "preview"  # the value of `do` in forms that only show what would be sent
log = logging.getLogger(__name__)


def record(
    action: str,
    *,
    actor: str = "",
    account_id: int | None = None,
    account_name: str = "",
    target: str = "",
    address: str = "",
    result: str = Result.DONE,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    via: str = "page",
) -> None:
    """Write one entry. Nothing in it may be secret: write `"password": "changed"`.

    `via`: page, api, command, provider or system. `before` and `after`: what the change is about, by field.
    """
    AuditEntry.objects.create(
        action=action[:64],
        actor=_printable(actor)[:150],
        account_id=account_id,
        account_name=_printable(account_name)[:64],
        target=_printable(target)[:300],
        address=address[:64],
        result=result,
        before=_short(before),
        after=_short(after),
        via=via[:16],
    )


def note(
    request: HttpRequest,
    *,
    target: object = "",
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    result: str = "",
    action: str = "",
) -> None:
    """Add to the entry of this request what the page knows of the change: on what, before and after, refused or not.

    `action` is what was done where the URL alone does not say it.
    """
    known = {"target": str(target), "before": before, "after": after, "result": result, "action": action}
    noted(request).update({name: value for name, value in known.items() if value})


def prune() -> int:
    """Forget what is older than KEEP_AUDIT_DAYS; how many entries that were."""
    return AuditEntry.objects.forget(before=timezone.now() - timedelta(days=settings.KEEP_AUDIT_DAYS))


def noted(request: HttpRequest) -> dict[str, Any]:
    found: dict[str, Any] = request.__dict__.setdefault("audit_notes", {})
    return found


def audited(request: HttpRequest, act: Callable[[], HttpResponse], *, previews: bool = False) -> HttpResponse:
    """What `act` answers, with an entry about it unless nothing was asked for or stored.

    previews: the view stores nothing where do=preview asks what would be sent. Such a request, of which there is one
    for every pause in typing, waits for nobody who writes. Only the view's own guard may say so: were it enough to
    read it from the request, any change could be sent as a “preview”.
    """
    if request.method in SAFE_METHODS:
        return act()
    shows = previews and request.POST.get("do") == PREVIEW
    try:
        with nullcontext() if shows else transaction.atomic():
            response = act()
            if not shows and (result := noted(request).get("result") or _result(response)):
                _write(request, result)
        return response
    except PermissionDenied:
        _write(request, Result.REFUSED)
        raise
    except Http404:
        raise
    except Exception as error:
        if not db_errors.reason(error):  # else it waits once more for what has just not come
            _write_if_possible(request)
        raise


def _result(response: HttpResponse) -> str:
    """A form that comes back with errors has changed nothing: no entry."""
    if response.status_code < 400:
        return str(Result.DONE)
    return str(Result.REFUSED) if response.status_code == 403 else ""


def _write(request: HttpRequest, result: str) -> None:
    known = noted(request)
    match, account = request.resolver_match, getattr(request, "account", None)
    record(
        known.get("action") or (match and match.url_name) or request.path,
        actor=request.user.get_username(),
        account_id=account.pk if account else None,
        account_name=account.name if account else "",
        target=known.get("target", "") or _named_in_url(match.kwargs if match else {}),
        address=address(request),
        result=result,
        before=known.get("before"),
        after=known.get("after"),
        via=getattr(request, "via", "page"),
    )


def _write_if_possible(request: HttpRequest) -> None:
    """Of what broke on our side; where the database itself is the reason, the log has to do."""
    try:
        _write(request, Result.FAILED)
    except Error as error:
        log.warning("Couldn't write an audit entry for %s: %s", request.path, error)


def _named_in_url(arguments: dict[str, Any]) -> str:
    return " ".join(str(value) for name, value in arguments.items() if name != "account")


def _printable(text: str) -> str:
    """On one line, and as every database can store it: whoever fails to sign in may call themselves anything."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _short(value: Any) -> Any:
    """`value` without texts that would fill the table: a file of requirements is kept with its operation."""
    if isinstance(value, dict):
        return {str(name): _short(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_short(item) for item in value]
    if isinstance(value, str):
        text = value.replace("\x00", "\ufffd").encode(errors="replace").decode()
        return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text)} characters)"
    return value if value is None or isinstance(value, int | float) else str(value)
