"""How groups of the identity provider become roles: what OIDC_ROLES says."""

from dataclasses import dataclass

ROLES = {"viewer": 1, "scientist": 2, "operator": 3}  # and how much each may do; settings need them without tables
EVERY_ACCOUNT = "*"


@dataclass(frozen=True)
class Grant:
    """Who is in `group` gets `role` in the hosting account `account` (`*`: in every one), or is an administrator."""

    group: str
    account: str = ""
    role: str = ""
    administrator: bool = False


def parse(text: str) -> list[Grant]:
    """The grants of `ml-team=lab:scientist,ops=*:operator,admins=admin`; where a `;` occurs, it separates instead.

    Raises ValueError with a sentence about the part that cannot be read.
    """
    return [_grant(part.strip()) for part in text.split(";" if ";" in text else ",") if part.strip()]


def _grant(part: str) -> Grant:
    group, equals, right = part.rpartition("=")  # names of groups may hold a =
    group, right = group.strip(), right.strip()
    if group and right == "admin":
        return Grant(group, administrator=True)
    account, _, role = right.partition(":")
    if not (group and equals and account and role in ROLES):
        raise ValueError(f"write {part!r} as group=account:role or group=admin; the roles are {', '.join(ROLES)}.")
    return Grant(group, account, role)


def roles(grants: list[Grant], groups: set[str], accounts: dict[str, int]) -> dict[int, str]:
    """The strongest role that somebody in `groups` has in each account; `accounts` are ids by name."""
    found: dict[int, str] = {}
    for grant in grants:
        if grant.group not in groups or grant.administrator:
            continue
        chosen = accounts.values() if grant.account == EVERY_ACCOUNT else [accounts.get(grant.account)]
        for account in chosen:
            if account is not None and ROLES[grant.role] > ROLES.get(found.get(account, ""), 0):
                found[account] = grant.role
    return found


def is_administrator(grants: list[Grant], groups: set[str]) -> bool:
    return any(grant.administrator and grant.group in groups for grant in grants)
