"""The hosting account `local`: the bundled MMS, which the dashboard calls over HTTP like any other server."""

from django.conf import settings
from django.db import transaction

from deployments.models import Cluster, HostingAccount, RegistryInfo
from encryption.fields import readable
from mms import audit, tokens

NAME = "local"  # also of its subscription, resource group and hosting account
REGISTRY = "this machine's store"
CLUSTER = "this machine"
KUBE_CONFIG = """\
apiVersion: v1
kind: Config
current-context: local
contexts: [{name: local, context: {cluster: local, user: local}}]
clusters: [{name: local, cluster: {server: "process://local"}}]
users: [{name: local, user: {}}]
"""


@transaction.atomic
def ensure() -> None:
    """Create the account with its registry and cluster, or update it.

    The address follows MMS_URL, and a token that the MMS doesn't know is replaced. Users' changes to the registry and
    the cluster aren't overwritten.
    """
    account = HostingAccount.objects.filter(name=NAME).first()
    if account is None:
        account = HostingAccount(name=NAME, subscription=NAME, resource_group=NAME, hosting_account=NAME)
    if account.sign_in == HostingAccount.SignIn.TOKEN and not _is_known(readable(account, "token") or ""):
        account.token = _new_token()
        account.record_secret_change("the site itself")
        account.token_refused = False
    account.base_url = settings.MMS_URL
    account.save()
    RegistryInfo.objects.get_or_create(account=account, name=REGISTRY, defaults={"location": "oci://local"})
    Cluster.objects.get_or_create(
        account=account, name=CLUSTER, defaults={"kube_config": KUBE_CONFIG, "pull_secret": NAME}
    )


def _is_known(token: str) -> bool:
    """Return True if the MMS accepts the token for reading and writing."""
    grant = tokens.find_grant(token)
    return grant is not None and grant.may_write


def _new_token() -> str:
    account = tokens.create_account(NAME, NAME, NAME)
    return tokens.create_token(account, "dashboard", via=audit.SYSTEM)
