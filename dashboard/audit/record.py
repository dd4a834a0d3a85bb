"""Writing of audit entries about changes and sign-ins.

The guards in dashboard.access write an entry for each request that may change something, so no view can omit it.
The view adds details with `note_details`. The entry of a view is written in the transaction of the change, so neither
exists without the other. Sign-in and commands write entries with `record_entry`.
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

from dashboard.audit.models import AuditEntry
from dashboard.http import db_errors
from dashboard.http.request import client_ip

Result = AuditEntry.Result
MAX_TEXT_LENGTH = 500  # characters of one text in `before` and `after`
SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
PREVIEW = "preview"  # value of the field `do` in forms that only show what would be sent
log = logging.getLogger(__name__)


def record_entry(
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
    """Write one entry. It must not contain secrets: write `"password": "changed"`.

    `via` is page, api, mms, command, provider or system. `before` and `after` describe the change by field.
    """
    AuditEntry.objects.create(
        action=action[:64],
        actor=_printable(actor)[:150],
        account_id=account_id,
        account_name=_printable(account_name)[:64],
        target=_printable(target)[:300],
        address=address[:64],
        result=result,
        before=_shortened(before),
        after=_shortened(after),
        via=via[:16],
    )


def note_details(
    request: HttpRequest,
    *,
    target: object = "",
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
    result: str = "",
    action: str = "",
) -> None:
    """Add details to the entry of this request: the target, the values before and after, the result.

    `action` replaces the name of the URL if that doesn't identify the change.
    """
    details = {"target": str(target), "before": before, "after": after, "result": result, "action": action}
    noted_details(request).update({name: value for name, value in details.items() if value})


def skip_entry(request: HttpRequest) -> None:
    """Write no entry for this request, because it repeated an earlier one and changed nothing."""
    noted_details(request)["skip"] = True


def noted_details(request: HttpRequest) -> dict[str, Any]:
    """Return the details added so far to the entry of this request."""
    details: dict[str, Any] = request.__dict__.setdefault("audit_notes", {})
    return details


def prune_entries() -> int:
    """Delete entries older than KEEP_AUDIT_DAYS. Return their number."""
    return AuditEntry.objects.delete_before(timezone.now() - timedelta(days=settings.KEEP_AUDIT_DAYS))


def run_audited(request: HttpRequest, act: Callable[[], HttpResponse], *, previews: bool = False) -> HttpResponse:
    """Return the response of `act`. Write an entry unless the request was safe or nothing changed.

    With `previews`, a request with do=preview counts as safe: the view only shows what would be sent. Such requests
    arrive at every pause in typing and must not wait for the write lock. Only the view's own guard may set it. If the
    request alone decided, any change could be sent as a "preview".
    """
    if request.method in SAFE_METHODS:
        return act()
    is_preview = previews and request.POST.get("do") == PREVIEW
    try:
        with nullcontext() if is_preview else transaction.atomic():
            response = act()
            details = noted_details(request)
            if not is_preview and not details.get("skip") and (result := details.get("result") or _result(response)):
                _write(request, result)
        return response
    except PermissionDenied:
        _write(request, Result.REFUSED)
        raise
    except Http404:
        raise
    except Exception as error:
        if not db_errors.user_message(error):  # the database just failed, so writing would only wait again
            _write_if_possible(request)
        raise


def _result(response: HttpResponse) -> str:
    """Return the result for this response, or "" for no entry, such as for a form with errors."""
    if response.status_code < 400:
        return str(Result.DONE)
    return str(Result.REFUSED) if response.status_code == 403 else ""


def _write(request: HttpRequest, result: str) -> None:
    details = noted_details(request)
    match, account = request.resolver_match, getattr(request, "account", None)
    record_entry(
        details.get("action") or (match and match.url_name) or request.path,
        actor=request.user.get_username(),
        account_id=account.pk if account else None,
        account_name=account.name if account else "",
        target=details.get("target", "") or _url_target(match.kwargs if match else {}),
        address=client_ip(request),
        result=result,
        before=details.get("before"),
        after=details.get("after"),
        via=getattr(request, "via", "page"),
    )


def _write_if_possible(request: HttpRequest) -> None:
    """Write an entry for an internal error. If the database is the cause, log a warning instead."""
    try:
        _write(request, Result.FAILED)
    except Error as error:
        log.warning("Couldn't write an audit entry for %s: %s", request.path, error)


def _url_target(arguments: dict[str, Any]) -> str:
    return " ".join(str(value) for name, value in arguments.items() if name != "account")


def _printable(text: str) -> str:
    """Return `text` on one line, as every database can store it. The name in a failed sign-in can be any text."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _shortened(value: Any) -> Any:
    """Return `value` with long texts cut off. The full values are stored with the operation."""
    if isinstance(value, dict):
        return {str(name): _shortened(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_shortened(item) for item in value]
    if isinstance(value, str):
        text = value.replace("\x00", "\ufffd").encode(errors="replace").decode()
        return text if len(text) <= MAX_TEXT_LENGTH else f"{text[:MAX_TEXT_LENGTH]}… ({len(text)} characters)"
    return value if value is None or isinstance(value, int | float) else str(value)
