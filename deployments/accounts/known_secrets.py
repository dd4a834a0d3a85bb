"""Secrets of a hosting account, which its server must not echo: not in pages, Redis, logs or the database."""

from dataclasses import dataclass, field
from typing import Any

from django.db.models import F, Model, QuerySet, TextField, Value
from django.db.models.functions import Cast

from deployments.client.transport import KnownSecrets
from deployments.models import Cluster, HostingAccount, RegistryInfo, Service
from encryption.fields import Undecryptable, readable
from netguard.redaction import Redactor, credentials_in_kubeconfig

MAX_FORMER = 100  # secrets that were replaced or deleted, and that operations sent before then may still echo
REGISTRY, CLUSTER, SERVICE = "registry", "cluster", "service"
COLUMNS: dict[str, tuple[type[Model], str]] = {
    REGISTRY: (RegistryInfo, "password"),
    CLUSTER: (Cluster, "kube_config"),
    SERVICE: (Service, "scoring_key"),
}
Encrypted = tuple[str, str]  # key of COLUMNS, and an encrypted value


@dataclass
class _Cached:
    """Secrets by encrypted value, as decrypting is slow, and the redactors that were created from them."""

    secrets: dict[Encrypted, tuple[str, ...]] = field(default_factory=dict)
    known: KnownSecrets = field(default_factory=KnownSecrets)
    of: frozenset[object] = frozenset()


_CACHE: dict[int, _Cached] = {}


def known_secrets(account: HostingAccount) -> KnownSecrets:
    """Return all secrets of the account, which may be unsaved. Decrypts only what changed in this process."""
    own = [secret for name in HostingAccount.SECRETS if (secret := readable(account, name))]
    if account.pk is None:
        return KnownSecrets(Redactor(own), Redactor(own))
    cached = _CACHE.setdefault(account.pk, _Cached())
    present = dict.fromkeys(_encrypted(account.pk))
    state = frozenset([*present, *own])
    if state != cached.of:
        former = [value for value in cached.secrets if value not in present][-MAX_FORMER:]
        secrets = {value: cached.secrets.get(value) or _decrypt(value) for value in [*former, *present]}
        credentials = [secret for (kind, _), found in secrets.items() if kind != SERVICE for secret in found]
        keys = [secret for (kind, _), found in secrets.items() if kind == SERVICE for secret in found]
        known = KnownSecrets(Redactor([*own, *credentials]), Redactor([*own, *credentials, *keys]))
        _CACHE[account.pk] = cached = _Cached(secrets, known, state)
    return cached.known


def _encrypted(account_id: int) -> list[Encrypted]:
    """Return the encrypted values of the account's secrets, in one query."""
    parts: list[QuerySet[Any, Any]] = []
    for kind, (of, name) in COLUMNS.items():
        rows = of._default_manager.filter(account=account_id, **{f"{name}__isnull": False}).order_by()
        # As text, because the field would decrypt it.
        encrypted = rows.annotate(kind=Value(kind), encrypted=Cast(F(name), TextField()))
        parts.append(encrypted.values_list("kind", "encrypted"))
    return list(parts[0].union(*parts[1:], all=True))


def _decrypt(value: Encrypted) -> tuple[str, ...]:
    kind, encrypted = value
    of, name = COLUMNS[kind]
    column: Any = of._meta.get_field(name)
    secret = column.decrypt(encrypted)
    if isinstance(secret, Undecryptable):  # so no server was ever sent it
        return ()
    return tuple(credentials_in_kubeconfig(secret)) if kind == CLUSTER else (secret,)
