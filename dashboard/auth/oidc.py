"""Sign-in with the identity provider: OpenID Connect code flow with PKCE, state and nonce, using Authlib.

Users are matched by issuer and subject alone, never by name or email address: people can choose those at the provider,
and could take over another user's account here.

The functions import Authlib themselves: sites without a provider save 5 MB of memory, and the time to load it.
"""

import logging
import re
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from requests import RequestException

from dashboard.access import group_roles, revocation
from dashboard.access.models import Membership, Source
from dashboard.audit.record import record_entry
from dashboard.auth.models import Identity
from dashboard.http.request import client_ip
from deployments.models import HostingAccount
from netguard.redaction import Redactor

TIMEOUT_SECONDS = 10  # timeout of each request to the provider
# Asymmetric signatures only, which require the provider's private key: no shared secrets, and not "none".
ALGORITHMS = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
MAX_CLAIM_CHARS = 1000  # of the names of claims in the log
log = logging.getLogger(__name__)


class OIDCLoginError(Exception):
    """The sign-in failed at the provider or here. `reason` is a name in people/provider_trouble.html."""

    def __init__(self, reason: str, status: int, detail: object = "") -> None:
        redactor = Redactor([settings.OIDC_CLIENT_SECRET])  # the provider may echo it
        super().__init__(redactor.text(f"{reason}: {detail}"))
        self.reason, self.status = reason, status


def authorize_redirect(request: HttpRequest) -> HttpResponse:
    """Return the redirect to the provider's sign-in page. Raises OIDCLoginError if the provider is unreachable."""
    from authlib.integrations.base_client.errors import OAuthError

    try:
        _metadata()
        callback = f"{settings.SITE_ORIGIN}{reverse('return_from_provider')}"
        response: HttpResponse = _client().authorize_redirect(request, callback)
        return response
    except (RequestException, OAuthError, RuntimeError, KeyError, ValueError) as error:
        raise OIDCLoginError("away", 503, error) from error


def fetch_claims(request: HttpRequest) -> dict[str, Any]:
    """Return the provider's claims about the user who was just redirected back. Raises OIDCLoginError."""
    from authlib.integrations.base_client.errors import MismatchingStateError, OAuthError
    from joserfc.errors import JoseError

    client = _client()
    try:
        metadata = _metadata()
        options = {
            "iss": {"essential": True, "values": [metadata["issuer"]]},
            "aud": {"essential": True, "values": [settings.OIDC_CLIENT_ID]},
        }
        token = client.authorize_access_token(request, claims_options=options)
        claims = dict(token["userinfo"])
        if not (isinstance(claims["sub"], str) and 0 < len(claims["sub"]) <= 255):
            raise ValueError("the subject isn't a text of 1 to 255 characters")
        if _groups_claim(claims) is None and "userinfo_endpoint" in metadata:
            more = dict(client.userinfo(token=token))
            if more.get("sub") == claims["sub"]:  # OpenID Connect Core, 5.3.2
                groups = _groups_claim(more)  # separately: both can have objects of the same name
                claims = {**more, **claims} | ({settings.OIDC_GROUPS_CLAIM: groups} if groups is not None else {})
        return claims
    except MismatchingStateError as error:
        raise OIDCLoginError("stale", 400, error) from error
    except OAuthError as error:
        raise OIDCLoginError("refused", 403, error.error) from error
    except RequestException as error:
        raise OIDCLoginError("away", 503, error) from error
    except (JoseError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise OIDCLoginError("untrusted", 502, f"{type(error).__name__} {error}") from error


def get_or_create_user(request: HttpRequest, claims: dict[str, Any]) -> User:
    """Return the user with the subject of these claims, created if necessary, with the roles of their groups.

    Raises OIDCLoginError if the user is deactivated.
    """
    issuer, subject = settings.OIDC_ISSUER, claims["sub"]
    try:
        with transaction.atomic():
            identity = Identity.objects.filter(issuer=issuer, subject=subject).first() or _create(issuer, claims)
    except IntegrityError:  # created at the same time in another tab
        identity = Identity.objects.get(issuer=issuer, subject=subject)
    if not identity.user.is_active:
        raise OIDCLoginError("deactivated", 403, identity.user)
    _assign_roles(request, identity, _groups(claims))
    return identity.user


def _assign_roles(request: HttpRequest, identity: Identity, groups: set[str]) -> None:
    """Replace the roles from the provider with those of the groups. Roles from the site stay and take precedence."""
    user, accounts = identity.user, dict(HostingAccount.objects.values_list("name", "pk"))
    with transaction.atomic():
        before = _roles(user)
        roles = group_roles.roles_of_groups(settings.OIDC_ROLES, groups, accounts)
        memberships = {member.account_id: member for member in Membership.objects.filter(user=user)}
        for account, member in memberships.items():
            if member.source == Source.PROVIDER and account not in roles:
                member.delete()
            elif member.source == Source.PROVIDER and member.role != roles[account]:
                Membership.objects.filter(pk=member.pk).update(role=roles[account])
        for account, role in roles.items():
            if account not in memberships:
                Membership.objects.create(user=user, account_id=account, role=role, source=Source.PROVIDER)
        _update_administrator(identity, group_roles.is_administrator(settings.OIDC_ROLES, groups))
        if (after := _roles(user)) == before:
            return
        record_entry(
            "roles_from_provider",
            target=user.get_username(),
            address=client_ip(request),
            before=before,
            after=after,
            via="provider",
        )
    revocation.cancel_unauthorized_operations()


def _update_administrator(identity: Identity, by_group: bool) -> None:
    """Grant or remove administrator access by group. Access that was granted in the site stays."""
    user = identity.user
    if by_group and not user.is_superuser:
        user.is_superuser = identity.administrator = True
    elif identity.administrator and not by_group:
        user.is_superuser = identity.administrator = False
    else:
        return
    user.save(update_fields=["is_superuser"])
    identity.save(update_fields=["administrator"])


def _roles(user: User) -> dict[str, Any]:
    accounts = dict(HostingAccount.objects.values_list("pk", "name"))
    members = Membership.objects.filter(user=user)
    roles = {accounts.get(member.account_id, str(member.account_id)): member.role for member in members}
    return {"roles": roles, "administrator": user.is_superuser}


def _create(issuer: str, claims: dict[str, Any]) -> Identity:
    user = get_user_model().objects.create_user(_available_name(claims), password=None)
    return Identity.objects.create(user=user, issuer=issuer, subject=claims["sub"])


def _available_name(claims: dict[str, Any]) -> str:
    """Return a username from the claims, with a number if it is already in use."""
    claimed = next((claims[name] for name in ("preferred_username", "email", "name", "sub") if claims.get(name)), "")
    name = re.sub(r"[^\w.@+-]+", "-", str(claimed)).strip("-")[:120] or "person"
    existing = {other.casefold() for other in _names_like(name)}
    numbered = (f"{name}-{number}" for number in range(2, len(existing) + 3))
    return next(candidate for candidate in (name, *numbered) if candidate.casefold() not in existing)


def _names_like(name: str) -> list[str]:
    return list(get_user_model().objects.filter(username__istartswith=name).values_list("username", flat=True))


def _groups(claims: dict[str, Any]) -> set[str]:
    """Return the groups in the claim OIDC_GROUPS_CLAIM. Log the first time in this process that it is missing."""
    value = _groups_claim(claims)
    if value is None and settings.OIDC_ROLES:
        _log_missing_claim(settings.OIDC_GROUPS_CLAIM, ", ".join(sorted(claims)))
    return group_roles.groups_of(value)


def _groups_claim(claims: dict[str, Any]) -> Any:
    return group_roles.find_claim(claims, settings.OIDC_GROUPS_CLAIM)


_missing_claims: set[str] = set()  # that were logged


def _log_missing_claim(name: str, sent: str) -> None:
    """Log once that the provider doesn't send the claim `name`. `sent`: the names of the claims that it sends."""
    if name not in _missing_claims:
        _missing_claims.add(name)
        log.warning(
            "The identity provider sent no claim %r (OIDC_GROUPS_CLAIM), so people get no roles from their groups. "
            "It sent: %s. Configure the provider to include the groups, or correct OIDC_GROUPS_CLAIM.",
            name,
            Redactor([settings.OIDC_CLIENT_SECRET]).text(sent)[:MAX_CLAIM_CHARS],
        )


def _client() -> Any:
    return _make_client(settings.OIDC_ISSUER, settings.OIDC_CLIENT_ID, settings.OIDC_CLIENT_SECRET)


@lru_cache(maxsize=1)
def _make_client(issuer: str, client_id: str, client_secret: str) -> Any:
    from authlib.integrations.django_client import OAuth

    return OAuth().register(
        "provider",
        client_id=client_id,
        client_secret=client_secret,
        server_metadata_url=f"{issuer}/.well-known/openid-configuration",
        client_kwargs={
            "scope": settings.OIDC_SCOPES,
            "code_challenge_method": "S256",
            "default_timeout": TIMEOUT_SECONDS,
        },
    )


def _metadata() -> dict[str, Any]:
    """Return the provider's metadata, fetched once per process. Raises RequestException and ValueError."""
    metadata: dict[str, Any] = _client().load_server_metadata()
    if str(metadata["issuer"]).rstrip("/") != settings.OIDC_ISSUER:
        raise ValueError(f"the provider's issuer is {metadata['issuer']!r}, not OIDC_ISSUER")
    offered = metadata.get("id_token_signing_alg_values_supported") or ["RS256"]
    metadata["id_token_signing_alg_values_supported"] = [name for name in offered if name in ALGORITHMS]
    return metadata
