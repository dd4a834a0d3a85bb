"""Sample hosting accounts: one is healthy, one has an unreachable server, and one has a rejected token.

All server addresses use a local port that nothing listens on, so running workers can't contact a real server.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from dashboard.ops.seed.catalog import COMMERCE, CREDIT, DOMAIN, PLANT, Portfolio
from dashboard.ops.seed.world import World
from deployments.models import Cluster, HostingAccount, RegistryInfo

HEALTHY = "commerce"
SERVER = "127.0.0.1:9"  # the discard port, which nothing listens on
PAUSE = timedelta(days=400)  # until workers next contact the healthy account
LISTS = ("models", "manifests", "images", "services")
KUBE_CONFIG = """\
apiVersion: v1
kind: Config
current-context: {name}
contexts: [{{name: {name}, context: {{cluster: {name}, user: deployer}}}}]
clusters: [{{name: {name}, cluster: {{server: "https://{name}.{domain}:6443"}}}}]
users: [{{name: deployer, user: {{token: "{token}"}}}}]
"""


def add(world: World) -> dict[str, tuple[HostingAccount, Portfolio]]:
    """Create the three accounts. Return each with its portfolio, by account name."""
    rows = [(_healthy(world), COMMERCE), (_unreachable(world), CREDIT), (_refused(world), PLANT)]
    for account, _ in rows:
        account.record_secret_change("omar")
        account.secret_set_at = world.ago(days=44)
        account.save()
    return {account.name: (account, portfolio) for account, portfolio in rows}


def _account(name: str, reached_at: datetime) -> HostingAccount:
    return HostingAccount(
        name=name,
        base_url=f"http://{SERVER}",
        subscription="meridian",
        resource_group=f"rg-{name}",
        hosting_account=name,
        reached_at=reached_at,
        **{f"{noun}_seen_at": reached_at for noun in LISTS},
    )


def _healthy(world: World) -> HostingAccount:
    account = _account(HEALTHY, world.now)
    account.token, account.not_before = world.hexadecimal(40), world.now + PAUSE
    return account


def _unreachable(world: World) -> HostingAccount:
    account = _account("credit-risk", world.ago(days=2, hours=3))
    account.token, account.error_at = world.hexadecimal(40), world.ago(days=2, hours=2, minutes=59)
    account.error = f"Couldn't reach {SERVER}: connection refused. Check that the server is running."
    return account


def _refused(world: World) -> HostingAccount:
    account = _account("plant-sensors", world.ago(days=5, hours=1))
    account.sign_in, account.tenant, account.client_id = (
        HostingAccount.SignIn.ENTRA,
        str(world.uuid()),
        str(world.uuid()),
    )
    account.authority = f"http://{SERVER}"
    account.client_secret, account.scope = world.hexadecimal(40), "api://mms/.default"
    account.token_refused, account.error_at = True, world.ago(days=5)
    account.refusal_retry_at = world.now + PAUSE
    account.error = f"{SERVER} rejected this account's token (status 401). An operator has to renew it."
    return account


def add_registries(world: World, account: HostingAccount) -> list[RegistryInfo]:
    """Create and return the account's registries."""
    places = [("releases", f"registry.{DOMAIN}/{account.name}"), ("experiments", f"registry.{DOMAIN}/sandbox")]
    rows = [
        RegistryInfo(account=account, name=name, location=location, user="ci-push", password=world.hexadecimal(32))
        for name, location in places
    ]
    _note_secrets(world, rows)
    RegistryInfo.objects.bulk_create(rows)
    return rows


def add_clusters(world: World, account: HostingAccount) -> dict[bool, Cluster]:
    """Create the account's clusters. Return the production cluster under True and the other under False."""
    rows = []
    for name, production in (("staging", False), ("production", True)):
        place = f"k8s-{name}-{account.name}"
        text = KUBE_CONFIG.format(name=place, domain=DOMAIN, token=world.hexadecimal(48))
        names = {"name": name, "pull_secret": f"{account.name}-pull"}
        rows.append(Cluster(account=account, production=production, kube_config=text, **names))
    _note_secrets(world, rows)
    Cluster.objects.bulk_create(rows)
    return {cluster.production: cluster for cluster in rows}


def _note_secrets(world: World, rows: Iterable[RegistryInfo | Cluster]) -> None:
    for row in rows:
        row.secret_set_at, row.secret_set_by = world.ago(days=43), "omar"
