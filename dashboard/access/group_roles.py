"""Roles of the identity provider's groups, as defined in OIDC_ROLES."""

from dataclasses import dataclass
from typing import Any

# Access level of each role. Defined here because settings need it before models can be imported.
ROLE_LEVELS = {"viewer": 1, "scientist": 2, "operator": 3}
ALL_ACCOUNTS = "*"


@dataclass(frozen=True)
class Grant:
    """A role for the members of a group in an account (`*`: every account), or administrator access."""

    group: str
    account: str = ""
    role: str = ""
    administrator: bool = False


def parse_grants(text: str) -> list[Grant]:
    """Parse a list such as `ml-team=lab:scientist,ops=*:operator,admins=admin`.

    If the list contains a `;`, that is the separator. Raises ValueError with a sentence about the invalid part.
    """
    return [_parse_grant(part.strip()) for part in text.split(";" if ";" in text else ",") if part.strip()]


def _parse_grant(part: str) -> Grant:
    group, equals, right = part.rpartition("=")  # group names may contain "="
    group, right = group.strip(), right.strip()
    if group and right == "admin":
        return Grant(group, administrator=True)
    account, _, role = right.partition(":")
    if not (group and equals and account and role in ROLE_LEVELS):
        raise ValueError(
            f"write {part!r} as group=account:role or group=admin; the roles are {', '.join(ROLE_LEVELS)}."
        )
    return Grant(group, account, role)


def roles_of_groups(grants: list[Grant], groups: set[str], accounts: dict[str, int]) -> dict[int, str]:
    """Return the strongest role by account id that the groups grant. `accounts` are ids by name."""
    roles: dict[int, str] = {}
    for grant in grants:
        if grant.group not in groups or grant.administrator:
            continue
        account_ids = accounts.values() if grant.account == ALL_ACCOUNTS else [accounts.get(grant.account)]
        for account_id in account_ids:
            if account_id is not None and ROLE_LEVELS[grant.role] > ROLE_LEVELS.get(roles.get(account_id, ""), 0):
                roles[account_id] = grant.role
    return roles


def is_administrator(grants: list[Grant], groups: set[str]) -> bool:
    """Return True if one of the groups grants administrator access."""
    return any(grant.administrator and grant.group in groups for grant in grants)


def find_claim(claims: dict[str, Any], name: str) -> Any:
    """Return the value of a claim, which may be in nested objects: `realm_access.roles`; None if there is none.

    Names can contain dots themselves. A claim with the longest literal name takes precedence.
    """
    if name in claims:
        return claims[name]
    prefix = name
    while "." in prefix:
        prefix = prefix.rpartition(".")[0]
        inner = claims.get(prefix)
        if isinstance(inner, dict) and (found := find_claim(inner, name[len(prefix) + 1 :])) is not None:
            return found
    return None


def groups_of(value: Any) -> set[str]:
    """Return the groups in the value of a claim: a list, an object whose keys are the groups, or one name."""
    if value is None or value == "":
        return set()
    return {str(group) for group in (value if isinstance(value, list | dict) else [value])}
