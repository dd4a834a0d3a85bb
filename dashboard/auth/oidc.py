"""Signing in at the identity provider: OpenID Connect, code flow with PKCE, state and nonce; Authlib speaks it.

Whoever the provider names is found by issuer and subject alone: never by name or address, which people there may choose
and which would make somebody here out of them.
"""

import logging
import re
from functools import lru_cache
from typing import Any

from authlib.integrations.base_client.errors import MismatchingStateError, OAuthError
from authlib.integrations.django_client import OAuth
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from joserfc.errors import JoseError
from requests import RequestException

from dashboard.access import group_roles, revocation
from dashboard.audit import record as audit
from dashboard.http.client_ip import address
from dashboard.models import Identity, Membership, Source
from deployments.models import HostingAccount

TIMEOUT = 10  # seconds for each question to the provider
# A signature that only the provider can have made: no shared secret, and not none at all.
ALGORITHMS = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
log = logging.getLogger(__name__)


class NotLetIn(Exception):
    """The provider, or the site, does not let this person in; `why` is a name in people/provider_trouble.html."""

    def __init__(self, why: str, status: int, detail: object = "") -> None:
        super().__init__(f"{why}: {detail}")
        self.why, self.status = why, status


def lead_there(request: HttpRequest) -> HttpResponse:
    """The redirect to the provider's page. Raises NotLetIn when it is out of reach."""
    try:
        _metadata()
        back = f"{settings.SITE_URL}{reverse('return_from_provider')}"
        answer: HttpResponse = _client().authorize_redirect(request, back)
        return answer
    except (RequestException, OAuthError, RuntimeError, KeyError, ValueError) as error:
        raise NotLetIn("away", 503, error) from error


def claims_of(request: HttpRequest) -> dict[str, Any]:
    """What the provider says of the person whom it has just led back. Raises NotLetIn."""
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
            raise ValueError("its subject is no text of at most 255 characters")
        if settings.OIDC_GROUPS_CLAIM not in claims and "userinfo_endpoint" in metadata:
            more = dict(client.userinfo(token=token))
            if more.get("sub") == claims["sub"]:  # OpenID Connect Core, 5.3.2
                claims = {**more, **claims}
        return claims
    except MismatchingStateError as error:
        raise NotLetIn("stale", 400, error) from error
    except OAuthError as error:
        raise NotLetIn("refused", 403, error.error) from error
    except RequestException as error:
        raise NotLetIn("away", 503, error) from error
    except (JoseError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise NotLetIn("untrusted", 502, f"{type(error).__name__} {error}") from error


def person(request: HttpRequest, claims: dict[str, Any]) -> Any:
    """The person with the subject of these claims, made if need be, with the roles of their groups.

    Raises NotLetIn when they were deactivated here.
    """
    issuer, subject = settings.OIDC_ISSUER, claims["sub"]
    try:
        with transaction.atomic():
            identity = Identity.objects.filter(issuer=issuer, subject=subject).first() or _make(issuer, claims)
    except IntegrityError:  # the same person, in another tab
        identity = Identity.objects.get(issuer=issuer, subject=subject)
    if not identity.user.is_active:
        raise NotLetIn("deactivated", 403, identity.user)
    _give_roles(request, identity, _groups(claims))
    return identity.user


def _give_roles(request: HttpRequest, identity: Identity, groups: set[str]) -> None:
    """Make the provider's roles of a person those of their groups; what was given in the site stays, and wins."""
    user, accounts = identity.user, dict(HostingAccount.objects.values_list("name", "pk"))
    with transaction.atomic():
        before = _roles(user)
        roles = group_roles.roles(settings.OIDC_ROLES, groups, accounts)
        known = {member.account_id: member for member in Membership.objects.filter(user=user)}
        for account, member in known.items():
            if member.source == Source.PROVIDER and account not in roles:
                member.delete()
            elif member.source == Source.PROVIDER and member.role != roles[account]:
                Membership.objects.filter(pk=member.pk).update(role=roles[account])
        for account, role in roles.items():
            if account not in known:
                Membership.objects.create(user=user, account_id=account, role=role, source=Source.PROVIDER)
        _make_administrator(identity, group_roles.is_administrator(settings.OIDC_ROLES, groups))
        if (after := _roles(user)) == before:
            return
        audit.record(
            "roles_from_provider",
            target=user.get_username(),
            address=address(request),
            before=before,
            after=after,
            via="provider",
        )
    revocation.withdraw()


def _make_administrator(identity: Identity, by_group: bool) -> None:
    """An administrator by group is one as long as the group lasts; one made here stays one."""
    user = identity.user
    if by_group and not user.is_superuser:
        user.is_superuser = identity.administrator = True
    elif identity.administrator and not by_group:
        user.is_superuser = identity.administrator = False
    else:
        return
    user.save(update_fields=["is_superuser"])
    identity.save(update_fields=["administrator"])


def _roles(user: Any) -> dict[str, Any]:
    accounts = dict(HostingAccount.objects.values_list("pk", "name"))
    members = Membership.objects.filter(user=user)
    roles = {accounts.get(member.account_id, str(member.account_id)): member.role for member in members}
    return {"roles": roles, "administrator": user.is_superuser}


def _make(issuer: str, claims: dict[str, Any]) -> Identity:
    people = get_user_model().objects
    user = people.create_user(_free_name(claims), password=None)
    return Identity.objects.create(user=user, issuer=issuer, subject=claims["sub"])


def _free_name(claims: dict[str, Any]) -> str:
    """A name for somebody new, as the provider calls them; with a number where somebody here is called so."""
    called = next((claims[name] for name in ("preferred_username", "email", "name", "sub") if claims.get(name)), "")
    name = re.sub(r"[^\w.@+-]+", "-", str(called)).strip("-")[:120] or "person"
    taken = {other.casefold() for other in _names_like(name)}
    numbered = (f"{name}-{number}" for number in range(2, len(taken) + 3))
    return name if name.casefold() not in taken else next(new for new in numbered if new.casefold() not in taken)


def _names_like(name: str) -> list[str]:
    return list(get_user_model().objects.filter(username__istartswith=name).values_list("username", flat=True))


def _groups(claims: dict[str, Any]) -> set[str]:
    """The names in the claim that OIDC_GROUPS_CLAIM names: a list, or one name."""
    found = claims.get(settings.OIDC_GROUPS_CLAIM) or []
    return {str(group) for group in (found if isinstance(found, list) else [found])}


def _client() -> Any:
    return _make_client(settings.OIDC_ISSUER, settings.OIDC_CLIENT_ID, settings.OIDC_CLIENT_SECRET)


@lru_cache(maxsize=1)
def _make_client(issuer: str, client_id: str, client_secret: str) -> Any:
    return OAuth().register(
        "provider",
        client_id=client_id,
        client_secret=client_secret,
        server_metadata_url=f"{issuer}/.well-known/openid-configuration",
        client_kwargs={"scope": settings.OIDC_SCOPES, "code_challenge_method": "S256", "default_timeout": TIMEOUT},
    )


def _metadata() -> dict[str, Any]:
    """What the provider says about itself, asked once per process. Raises RequestException or ValueError."""
    metadata: dict[str, Any] = _client().load_server_metadata()
    if str(metadata["issuer"]).rstrip("/") != settings.OIDC_ISSUER:
        raise ValueError(f"the provider calls itself {metadata['issuer']!r}, not OIDC_ISSUER")
    offered = metadata.get("id_token_signing_alg_values_supported") or ["RS256"]
    metadata["id_token_signing_alg_values_supported"] = [name for name in offered if name in ALGORITHMS]
    return metadata
