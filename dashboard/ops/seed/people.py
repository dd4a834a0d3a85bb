"""People with each role, a service account for programs, and API tokens in each state."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password

from dashboard.access.models import Membership, Role, Source
from dashboard.auth.models import ApiToken, Identity, Machine
from dashboard.ops.seed.world import World
from deployments.models import HostingAccount

ISSUER = "https://login.meridian.example"
PROGRAM = "ci-pipeline"


@dataclass(frozen=True)
class Person:
    """An employee with the same role in each of `accounts`. `provider`: signs in with the identity provider."""

    name: str
    role: Role | None
    accounts: tuple[str, ...] = ()
    provider: bool = False
    active: bool = True
    invited: bool = False  # has not set a password yet


PEOPLE = (
    Person("admin", None),
    Person("omar", Role.OPERATOR, ("commerce", "credit-risk", "plant-sensors", "local")),
    Person("samira", Role.SCIENTIST, ("commerce", "credit-risk", "plant-sensors", "local")),
    Person("vera", Role.VIEWER, ("commerce", "credit-risk", "plant-sensors", "local")),
    Person("lena.hoffmann", Role.SCIENTIST, ("commerce",), provider=True),
    Person("tariq.aziz", Role.SCIENTIST, ("commerce", "plant-sensors"), provider=True),
    Person("mei.tanaka", Role.SCIENTIST, ("credit-risk",), provider=True),
    Person("jonas.lind", Role.SCIENTIST, ("plant-sensors",), provider=True),
    Person("priya.nair", Role.OPERATOR, ("credit-risk",), provider=True),
    Person("ines.moreau", Role.VIEWER, ("commerce",), invited=True),
    Person("noah.bakker", Role.VIEWER, ("commerce", "credit-risk")),
    Person("wouter", Role.SCIENTIST, ("commerce",), active=False),
    Person(PROGRAM, Role.SCIENTIST, ("commerce",)),
)
SIGN_IN = {"admin": "administrator", "omar": "operator", "samira": "data scientist", "vera": "viewer"}


def add(world: World, password: str) -> dict[str, Any]:
    """Create the users and return them by name. `password`: of every user with a local password."""
    hashed = make_password(password)  # only once, because hashing is slow by design
    users = get_user_model()
    created = [
        users(
            username=person.name,
            is_superuser=person.role is None,
            is_active=person.active,
            password=hashed if _signs_in_here(person) else make_password(None),
            date_joined=world.ago(days=44 - number),
            last_login=_last_login(world, person),
        )
        for number, person in enumerate(PEOPLE)
    ]
    users._default_manager.bulk_create(created)
    people = {user.get_username(): user for user in created}
    Machine.objects.create(user=people[PROGRAM])
    Identity.objects.bulk_create(
        Identity(user=people[person.name], issuer=ISSUER, subject=str(world.uuid()))
        for person in PEOPLE
        if person.provider
    )
    return people


def _last_login(world: World, person: Person) -> datetime | None:
    days = world.random.uniform(0.05, 3.5) if person.active else 21
    return world.ago(days=days) if _signs_in(person) else None


def _signs_in(person: Person) -> bool:
    return person.name != PROGRAM and not person.invited


def _signs_in_here(person: Person) -> bool:
    return _signs_in(person) and not person.provider


def add_members(people: dict[str, Any], accounts: list[HostingAccount]) -> None:
    """Create the memberships of all users. Names in `Person.accounts` without an account are skipped."""
    keys = {account.name: account.pk for account in accounts}
    Membership.objects.bulk_create(
        Membership(
            user=people[person.name],
            account_id=keys[name],
            role=person.role,
            source=Source.PROVIDER if person.provider else Source.SITE,
        )
        for person in PEOPLE
        for name in person.accounts
        if person.role and name in keys
    )


def team(account: str, *roles: Role) -> list[str]:
    """Return the names of those with one of `roles` in the account, including service accounts and inactive users."""
    return [person.name for person in PEOPLE if person.role in roles and account in person.accounts]


def add_tokens(world: World, people: dict[str, Any], account: HostingAccount) -> None:
    """Create API tokens that are active, expired or revoked. Their digests are random, so none can be used."""
    tokens = [
        _token(world, people[PROGRAM], "nightly retraining", 38, 90, account, used=True),
        _token(world, people[PROGRAM], "old runner", 41, 30, account),
        _token(world, people["samira"], "notebook", 12, 30, None, used=True, scope=ApiToken.Scope.READ),
        _token(world, people["omar"], "terraform trial", 20, 90, account, revoked_at=world.ago(days=6)),
    ]
    times = [token.created_at for token in tokens]
    ApiToken.objects.bulk_create(tokens)
    for token, created_at in zip(tokens, times, strict=True):
        token.created_at = created_at
    ApiToken.objects.bulk_update(tokens, ["created_at"])


def _token(
    world: World,
    owner: Any,
    name: str,
    age: int,
    days: int,
    account: HostingAccount | None,
    used: bool = False,
    scope: str = ApiToken.Scope.WRITE,
    revoked_at: datetime | None = None,
) -> ApiToken:
    created_at = world.ago(days=age)
    return ApiToken(
        owner=owner,
        name=name,
        digest=world.hexadecimal(64),
        scope=scope,
        account_id=account.pk if account else None,
        created_at=created_at,
        expires_at=created_at + timedelta(days=days),
        revoked_at=revoked_at,
        last_used_at=world.ago(minutes=17) if used else None,
        last_used_from="10.20.4.17" if used else "",
    )
