"""Fill an empty database with sample data. A database that contains other data is left unchanged."""

from dataclasses import dataclass
from random import Random

from django.contrib.auth import get_user_model
from django.db import transaction
from django.utils import timezone

from dashboard.access.models import Role
from dashboard.ops.seed import accounts, audit, live, people
from dashboard.ops.seed.catalog import Portfolio
from dashboard.ops.seed.history import projects, unfinished
from dashboard.ops.seed.history.story import Story
from dashboard.ops.seed.world import World
from dashboard.ops.startup import bundled_account
from deployments.models import Asset, HostingAccount, Image, Manifest, Operation, RegisteredModel, Service

SEED = 2026
NOUNS = (RegisteredModel, Asset, Manifest, Image, Service, Operation)


class NotEmptyError(Exception):
    """The database already contains data. The message names an example."""


@dataclass(frozen=True)
class FillResult:
    """The number of rows of each kind, by plural noun."""

    counts: dict[str, int]


def found_data() -> str:
    """Return a description of existing data, or "" if the database is empty."""
    others = list(HostingAccount.objects.exclude(name=bundled_account.NAME).values_list("name", flat=True)[:3])
    if others:
        return f"the hosting account {others[0]!r}"
    for noun in NOUNS:
        if noun._default_manager.exists():
            return f"{noun._meta.verbose_name_plural} in the account {bundled_account.NAME!r}"
    user = get_user_model()._default_manager.order_by("pk").first()
    return f"the user {user.get_username()!r}" if user else ""


@transaction.atomic
def fill(password: str, seed: int = SEED) -> FillResult:
    """Create all sample data, with the same password for every local user. Raises NotEmptyError if there is data."""
    if existing := found_data():
        raise NotEmptyError(existing)
    world = World(Random(seed), timezone.now())  # noqa: S311 - nothing depends on it being secret
    users = people.add(world, password)
    portfolios = accounts.add(world)
    people.add_members(users, list(HostingAccount.objects.all()))
    people.add_tokens(world, users, portfolios[accounts.HEALTHY][0])
    stories = [_write_story(world, account, portfolio) for account, portfolio in portfolios.values()]
    audit.write(world, stories)
    transaction.on_commit(live.keep_fresh)
    return FillResult(count_rows())


def _write_story(world: World, account: HostingAccount, portfolio: Portfolio) -> Story:
    healthy = account.name == accounts.HEALTHY
    story = Story(
        world,
        account,
        scientists=[name for name in people.team(account.name, Role.SCIENTIST) if name != "wouter"],
        operator="omar",
        registries=accounts.add_registries(world, account),
        clusters=accounts.add_clusters(world, account),
        reports_health=account.name != "credit-risk",
    )
    age = (world.now - (account.reached_at or world.now)).total_seconds() / 86400
    for project in portfolio.projects:
        projects.add_history(story, project, newest=age + 0.1)
    lively = unfinished.LIVELY
    rest = unfinished.pairs_except(lively)
    pairs = list(lively) if healthy else rest[::2] if account.token_refused else rest[1::2]
    unfinished.add(story, portfolio, pairs)
    unfinished.vary(story)
    unfinished.retire(story, portfolio.projects[0])
    story.save()
    return story


def count_rows() -> dict[str, int]:
    """Return the number of rows of each kind, by plural noun."""
    counted = {str(noun._meta.verbose_name_plural): noun._default_manager.count() for noun in NOUNS}
    return {"hosting accounts": HostingAccount.objects.count(), **counted}
