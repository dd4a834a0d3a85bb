"""Every route, every method and every kind of user: forbidden requests are denied and change nothing."""

from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth import get_user_model
from django.test import Client

from dashboard.access.permissions import Permission, required_level
from dashboard.models import AuditEntry
from tests.support.doors import OF_AN_ACCOUNT, VIEWS, address, permission_of
from tests.support.people import Cast, Lab, make_cast, make_lab

pytestmark = pytest.mark.django_db
METHODS = ("get", "head", "options", "post", "put", "patch", "delete")
LEVELS = {"anonymous": -1, "stranger": 0, "viewer": 1, "scientist": 2, "operator": 3, "admin": 4}
NAMES = {"viewer": "vera", "scientist": "sam", "operator": "otto", "admin": "ada", "stranger": "stella"}
PARTS = 3  # of the routes, so that each test is short
SLOW = ["doctor"]  # each request runs all checks
REDIRECT, FORBIDDEN, NOT_FOUND, WRONG_METHOD = 302, 403, 404, 405


@pytest.fixture
def lab(live_redis: Any) -> Lab:
    return make_lab()


@pytest.fixture
def cast(lab: Lab) -> Cast:
    return make_cast(lab.account)


def expected_status(name: str, person: str) -> int | None:
    """Return the expected status for this person, or None if they have access. Fails without a declared permission."""
    permission, level = permission_of(name), LEVELS[person]
    if permission == "anyone":
        return None
    if level < 0:
        return REDIRECT
    if permission == "signed in":
        return None
    if permission == "operator of any account":
        return None if level >= 3 or person == "stranger" else FORBIDDEN  # the stranger operates another account
    assert isinstance(permission, Permission), f"{name} declares no permission"
    if name in OF_AN_ACCOUNT:
        if level == 0:
            return NOT_FOUND
        return FORBIDDEN if level < required_level(permission) else None
    return FORBIDDEN if level < required_level(permission) else None


def counts() -> dict[str, int]:
    """Return the number of rows in each table except the audit log."""
    ours = [*apps.get_app_config("dashboard").get_models(), *apps.get_app_config("deployments").get_models()]
    ours += [*apps.get_app_config("mms").get_models(), *apps.get_app_config("auth").get_models()]
    return {model.__name__: model._default_manager.count() for model in ours if model is not AuditEntry}


def walk(names: list[str], person: str, lab: Lab, cast: Cast) -> int:
    """Request the routes with every method, and check each response. Return the number of requests."""
    client: Client = cast.everybody()[person]
    requests = 0
    for name in names:
        expected, url = expected_status(name, person), address(name, lab)
        before = counts() if expected is not None else {}
        for method in METHODS:
            answer = getattr(client, method)(url)
            requests += 1
            assert answer.status_code < 500 or name == "healthz", (name, method, answer.status_code)
            if expected is None:
                continue
            assert answer.status_code in {expected, WRONG_METHOD}, (name, method, answer.status_code)
            if answer.status_code == REDIRECT:
                assert answer.headers["Location"].startswith("/sign-in/"), (name, method)
        if expected is not None:
            assert counts() == before, f"{name} changed something for {person}"
        if name == "sign_out" and person != "anonymous":
            client.force_login(get_user_model().objects.get(username=NAMES[person]))
    return requests


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("person", LEVELS)
def test_every_route_and_method_for_every_kind_of_user(
    person: str, part: int, lab: Lab, cast: Cast, record: Any
) -> None:
    names = sorted(set(VIEWS) - set(SLOW))[part::PARTS]
    requests = walk(names, person, lab, cast)
    record |= {"routes": len(names), "methods": len(METHODS), "requests": requests}


@pytest.mark.slow
@pytest.mark.parametrize("person", LEVELS)
def test_every_slow_route_and_method_for_every_kind_of_user(person: str, lab: Lab, cast: Cast) -> None:
    assert walk(SLOW, person, lab, cast) == len(SLOW) * len(METHODS)
