"""Audit entries about changes at this server.

The server has no pages, so the site that contains it stores the entries in its own audit log: the setting
MMS_AUDIT_RECORDER names the function. Call `record` in the transaction of the change, so that neither exists without
the other.
"""

from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

from mms.models import Account, Token

DONE, REFUSED, FAILED = "done", "refused", "failed"  # results
API, COMMAND, SYSTEM = "mms", "command", "system"  # interfaces
ACTORS = {COMMAND: "the operator of the site", SYSTEM: "the site itself"}


def record(
    action: str,
    *,
    names: tuple[str, str, str],
    actor: str = "",
    target: str = "",
    address: str = "",
    result: str = DONE,
    via: str = API,
    after: dict[str, Any] | None = None,
) -> None:
    """Store one entry, which must not contain secrets.

    `names` are subscription, resource group and name of the hosting account, `via` is one of the interfaces above, and
    `after` describes the change.
    """
    import_string(settings.MMS_AUDIT_RECORDER)(
        action, names=names, actor=actor, target=target, address=address, result=result, via=via, after=after or None
    )


def record_token_change(action: str, token: Token, via: str) -> None:
    """Store an entry about creating or revoking a token."""
    record(
        action,
        actor=ACTORS[via],
        names=names_of(token.account),
        target=token_label(token.pk, token.name),
        via=via,
        after={"scope": str(token.scope), "expires": token.expires_at.isoformat() if token.expires_at else "never"},
    )


def names_of(account: Account) -> tuple[str, str, str]:
    """Return the names that identify a hosting account."""
    return account.subscription, account.resource_group, account.name


def token_label(number: int, name: str) -> str:
    """Return a token as entries name it: its number in `list_tokens` and its purpose."""
    return f"MMS token {number} ({name})"
