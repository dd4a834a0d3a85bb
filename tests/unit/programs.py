"""Programs that call the JSON API, each with its token: what `people.py` is for pages."""

import json
from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone

from dashboard import tokens
from dashboard.models import ApiToken, Membership, Role
from deployments.models import HostingAccount
from tests.unit.people import Lab


class Program:
    """Sends JSON with a bearer token, and no cookie. `token` is whatever stands after “Bearer ”; "" sends none."""

    def __init__(self, token: str = "", client: Client | None = None) -> None:
        self.token, self.client = token, client or Client()

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> HttpResponse:
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = body if isinstance(body, str | bytes) else "" if body is None else json.dumps(body)
        kind = "application/json" if data else ""
        return self.client.generic(
            method, path, data, kind, headers={n.replace("_", "-"): v for n, v in headers.items()}
        )

    def get(self, path: str, **headers: str) -> HttpResponse:
        return self.send("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> HttpResponse:
        return self.send("POST", path, body, **headers)


def person(name: str, account: HostingAccount | None = None, role: Role | None = None) -> Any:
    """The person of that name, made if need be, with the role in the account."""
    user, _ = get_user_model().objects.get_or_create(username=name)
    if account and role:
        Membership.objects.get_or_create(user=user, account_id=account.pk, defaults={"role": role})
    return user


def token_of(user: Any, scope: str = ApiToken.Scope.WRITE, account: HostingAccount | None = None, days: int = 7) -> str:
    return tokens.create(user, f"{scope} token", scope, account.pk if account else None, days)[1]


def row_of(lab: Lab, nouns: str) -> Any:
    """The row of the lab that stands for one of `nouns` in an address; of the people, the member."""
    if nouns == "people":
        return lab.member.user
    return getattr(lab, "registry" if nouns == "registries" else nouns.removesuffix("s"))


def expired(text: str) -> str:
    _row(text).update(expires_at=timezone.now() - timedelta(seconds=1))
    return text


def revoked(text: str) -> str:
    _row(text).update(revoked_at=timezone.now())
    return text


def _row(text: str) -> Any:
    return ApiToken.objects.filter(digest=tokens._digest(text))
